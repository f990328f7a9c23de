# Zones of a store with the connection of each. See `store_zones.py`.

@cython.final
cdef class StoreNode:
    """Node of a zone, with the zone tuple of its sole connection."""

    cdef object _node
    cdef object _connections
    cdef object _sole  # at the last store
    cdef tuple _zone  # None without one


@cython.final
cdef class StorePlacement:
    """Nodes of one zone."""

    cdef object _name
    cdef object _counts
    cdef list _nodes
    cdef array _points
    cdef array _owners


@cython.final
cdef class StoreZones:
    """The zones of one snapshot. See `store_zones.StoreZones`."""

    cdef list _placements

    def __init__(self, placements):
        cdef StorePlacement placement
        cdef StoreNode kept
        self._placements = []
        for name, counts, nodes, points, owners in placements:
            placement = StorePlacement.__new__(StorePlacement)
            placement._name = name
            placement._counts = counts
            placement._points = points
            placement._owners = owners
            placement._nodes = []
            if points is not None and not _is_ring(points, owners):
                raise ValueError("a ring has at least one point, and an owner for each")
            for node in nodes:
                kept = StoreNode.__new__(StoreNode)
                kept._node = node
                kept._connections = node.connections
                placement._nodes.append(kept)
            self._placements.append(placement)

    def of(self, bytes key not None, Py_ssize_t size):
        """Return the zones with the connection to the node of a key. See `store_zones.StoreZones.of`."""
        cdef list zones = []
        cdef StorePlacement placement
        cdef StoreNode node
        cdef unsigned int index
        for placement in self._placements:
            index = 0
            if placement._points is not None:
                index = _owner_of(
                    key, placement._points.data.as_uints, placement._owners.data.as_uints, len(placement._points)
                )
            node = placement._nodes[index]
            sole = node._connections.sole
            if sole is None:
                node._sole = None  # a connection that has ended is not kept
                node._zone = None
                return None
            if <Py_ssize_t>node._node.versioned_bytes < size:
                return None
            if sole is not node._sole:
                # `Pipeline` has the method of its exchange. Other connections, and those of the other core, have another one.
                exchange = getattr(sole.send_store, "__self__", None)
                connection = exchange if type(exchange) is Exchange else sole
                node._zone = (placement._name, placement._counts, connection, None)
                node._sole = sole
            zones.append(node._zone)
        return zones
