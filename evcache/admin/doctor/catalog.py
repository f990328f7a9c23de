"""All faults that the judges can find, as data. The page `docs/operations/doctor.md` shows the table."""

from __future__ import annotations

from evcache.admin.doctor.findings import Fault, Subject, Verdict

_PROBLEM, _WARNING = Verdict.PROBLEM, Verdict.WARNING

ADDRESS_SHARED = Fault(
    "address-shared",
    Subject.TOPOLOGY,
    _PROBLEM,
    "Two labels or two zones lead to one server. It holds one copy, where the topology counts two.",
    "give each label of each zone a server of its own",
)
NODE_COUNTS_DIFFER = Fault(
    "node-counts-differ",
    Subject.TOPOLOGY,
    _WARNING,
    "A zone has less than half the nodes of another one. Its nodes get the load and the data of several.",
    "give the zones the same capacity, or list the missing nodes",
)
LOCAL_ZONE_MISSING = Fault(
    "local-zone-missing",
    Subject.TOPOLOGY,
    _PROBLEM,
    "The topology lacks the local zone of this host. Clients here read another zone first, and pay for its traffic.",
    "correct `--local-zone`, or add the zone to the topology",
)
ZONE_DOWN = Fault(
    "zone-down",
    Subject.REACHABILITY,
    _PROBLEM,
    "No node of the zone answers.",
    "start the servers of the zone, or open the network between this host and them",
)
NODE_DOWN = Fault(
    "node-down",
    Subject.REACHABILITY,
    _PROBLEM,
    "A node does not answer. Its keys are read from other zones.",
    "start the server, correct its address, or open the network between this host and it",
)
TLS_REQUIRED = Fault(
    "tls-required",
    Subject.REACHABILITY,
    _PROBLEM,
    "The node answers with TLS only, and the command uses none.",
    "use TLS on all nodes or on none; `--tls` makes the command use it, and `SocketDialer(tls=...)` a client",
)
TLS_MISSING = Fault(
    "tls-missing",
    Subject.REACHABILITY,
    _PROBLEM,
    "The node answers without TLS only, and the command uses TLS.",
    "start the server with `-Z` and its certificate, or use TLS on no node",
)
CERTIFICATE_REFUSED = Fault(
    "certificate-refused",
    Subject.REACHABILITY,
    _PROBLEM,
    "The node speaks TLS, and its certificate is not accepted.",
    "name the certificates that sign it with `--tls-ca` and its name with `--tls-name`, or renew the certificate",
)
EXAMINATION_INCOMPLETE = Fault(
    "examination-incomplete",
    Subject.REACHABILITY,
    _WARNING,
    "The node answers, but not to all questions in time. Its other findings may be missing.",
    "raise `--timeout`, or look for the load of the server",
)
VERSIONS_DIFFER_IN_ZONE = Fault(
    "versions-differ-in-zone",
    Subject.VERSIONS,
    _WARNING,
    "Nodes of one zone run different releases of memcached. Features then depend on the key.",
    "run one release on all nodes; a finished upgrade removes the finding",
)
VERSIONS_DIFFER_BETWEEN_ZONES = Fault(
    "versions-differ-between-zones",
    Subject.VERSIONS,
    _WARNING,
    "Zones run different releases of memcached.",
    "run one release in all zones; a finished upgrade removes the finding",
)
NO_VERSIONS = Fault(
    "no-versions",
    Subject.VERSIONS,
    _PROBLEM,
    "The server keeps no versions of items. Its copies are not repaired, and a late write can replace a newer one.",
    'upgrade to memcached 1.6.27 or newer, and run it without `-C`; or use `ordering="arrival"`',
)
CLASSIC_PROTOCOL = Fault(
    "classic-protocol",
    Subject.FEATURES,
    _WARNING,
    "The node is used over the classic protocol, because it has no meta protocol or the command asked for it.",
    "upgrade to memcached 1.6.18 or newer, or connect to the servers without the proxy",
)
CAS_DISABLED = Fault(
    "cas-disabled",
    Subject.FEATURES,
    _PROBLEM,
    "The server runs with `-C`. `cas`, `replace`, `append` and `prepend` raise an error there.",
    "start the server without `-C`",
)
BUILT_IN_PROXY = Fault(
    "built-in-proxy",
    Subject.PROXIES,
    _WARNING,
    "The node is memcached's proxy. Its routes decide about the servers behind it, and not the ring of the client.",
    "connect to the servers themselves, one node for each",
)
SEVERAL_SERVERS = Fault(
    "several-servers",
    Subject.PROXIES,
    _PROBLEM,
    "Connections to one address reach different server processes. A key is found on one of them only.",
    "list each server as a node of its own, in place of the load balancer or the name with several addresses",
)
CONNECTION_RELAYED = Fault(
    "connection-relayed",
    Subject.PROXIES,
    _WARNING,
    "The server does not list the connection under its address. A TCP proxy, a load balancer or a NAT is in between.",
    "connect to the server itself; `--ignore connection-relayed` accepts a NAT",
)
STATISTICS_REFUSED = Fault(
    "statistics-refused",
    Subject.PROXIES,
    _WARNING,
    "The node refuses `stats`, as proxies do. Most examinations leave it out.",
    "connect to the server itself, or use the figures of the service that runs it",
)
CONNECTIONS_NEAR_LIMIT = Fault(
    "connections-near-limit",
    Subject.CONNECTIONS,
    _PROBLEM,
    "The server has few free connections. Above its limit it refuses clients.",
    "raise `-c`, or use fewer processes and connections for each",
)
CONNECTIONS_REFUSED = Fault(
    "connections-refused",
    Subject.CONNECTIONS,
    _WARNING,
    "The server has refused connections since its start, because it reached its limit.",
    "raise `-c`; the figure is reset by a restart of the server",
)
CONNECTION_LIMIT_LOW = Fault(
    "connection-limit-low",
    Subject.CONNECTIONS,
    _WARNING,
    "The limit of connections is below memcached's default. The server's own descriptors count towards it.",
    "raise `-c` to 1024 or more",
)
MEMORY_DIFFERS = Fault(
    "memory-differs",
    Subject.MEMORY,
    _WARNING,
    "Nodes have different memory for items. The smallest one evicts first.",
    "start all nodes with the same `-m`",
)
EVICTIONS_FAST = Fault(
    "evictions-fast",
    Subject.MEMORY,
    _WARNING,
    "The server evicts its whole content in less than an hour. Items do not live as long as their TTL.",
    "raise `-m`, add nodes, or store less",
)
EVICTED_UNREAD = Fault(
    "evicted-unread",
    Subject.MEMORY,
    _WARNING,
    "Over half of the evicted items were never read.",
    "do not store values that are not read again, or shorten their TTL",
)
ITEM_SIZE_DIFFERS = Fault(
    "item-size-differs",
    Subject.SETTINGS,
    _PROBLEM,
    "Nodes have different limits for the size of an item. A large value is stored in some zones only.",
    "start all nodes with the same `-I`",
)
EVICTIONS_DISABLED = Fault(
    "evictions-disabled",
    Subject.SETTINGS,
    _WARNING,
    "The server runs with `-M`. When it is full, it refuses stores and loses the old value of the key.",
    "start the server without `-M`",
)
LISTS_DISABLED = Fault(
    "lists-disabled",
    Subject.SETTINGS,
    _WARNING,
    "The server lists no keys. A new zone cannot be warmed from it, and its keys are not examined.",
    "start the server without `-X`",
)
IDLE_TIMEOUT_SHORT = Fault(
    "idle-timeout-short",
    Subject.SETTINGS,
    _WARNING,
    "The server closes connections that clients keep for later. The next request waits for a new connection.",
    "start the server without `-o idle_timeout`, or with 60 s or more",
)
HASH_TABLE_SMALL = Fault(
    "hash-table-small",
    Subject.SETTINGS,
    _WARNING,
    "The hash table starts far too small for the number of items, and grows many times after each restart.",
    "start the server with `-o hashpower=` and the number of the finding",
)
SERVER_CLOCK = Fault(
    "server-clock",
    Subject.CLOCKS,
    _WARNING,
    "The clock of the server differs from that of this host. TTLs above 30 days end at another time there.",
    "synchronize the clock of the server, then restart memcached, which reads it at its start",
)
HOST_CLOCK = Fault(
    "host-clock",
    Subject.CLOCKS,
    _PROBLEM,
    "All servers agree about the time, and this host differs. Clients on it write versions of a wrong time.",
    "synchronize the clock of this host",
)
ITEM_VERSIONS_REFUSED = Fault(
    "item-versions-refused",
    Subject.CLOCKS,
    _PROBLEM,
    "Items have versions over 60 s ahead, further than clients believe. Each write of these keys is sent twice.",
    "synchronize the clock of the client with that writer id; its items leave with their TTL",
)
ITEM_VERSIONS_AHEAD = Fault(
    "item-versions-ahead",
    Subject.CLOCKS,
    _WARNING,
    "Items have versions that are some seconds ahead. Until that time, the first write of such a key is sent twice.",
    "synchronize the clock of the client with that writer id",
)
LABELS_SWAPPED = Fault(
    "labels-swapped",
    Subject.PLACEMENT,
    _PROBLEM,
    "Two nodes hold the keys of each other. All reads of them miss.",
    "exchange the labels of the two nodes in the topology",
)
LABEL_WRONG = Fault(
    "label-wrong",
    Subject.PLACEMENT,
    _PROBLEM,
    "A node holds the keys of another label. All reads of it miss.",
    "give the node the label whose keys it holds",
)
KEYS_MISPLACED = Fault(
    "keys-misplaced",
    Subject.PLACEMENT,
    _WARNING,
    "A share of the keys belongs to other nodes of the zone, as after a change of its nodes. Clients do not read them.",
    "wait for their TTL; if the share stays, look for a client with other nodes or labels",
)
NAMESPACES_FOREIGN = Fault(
    "namespaces-foreign",
    Subject.NAMESPACES,
    _PROBLEM,
    "A zone has no namespace in common with the other zones. It belongs to another cache.",
    "correct the addresses of the zone, or those of the other zones",
)
NAMESPACES_DIFFER = Fault(
    "namespaces-differ",
    Subject.NAMESPACES,
    _WARNING,
    "A namespace with many keys in one zone is missing in another zone.",
    "look for clients whose topology lacks the zone, then warm it",
)
NAMESPACE_MISSING = Fault(
    "namespace-missing",
    Subject.NAMESPACES,
    _PROBLEM,
    "A zone has keys, but none of the named namespace, which other zones have.",
    "correct the addresses of the zone, or warm it",
)
NAMESPACE_UNKNOWN = Fault(
    "namespace-unknown",
    Subject.NAMESPACES,
    _WARNING,
    "No zone has keys of the named namespace.",
    "correct `--namespace`, or the addresses of all zones",
)
ZONES_UNEVEN = Fault(
    "zones-uneven",
    Subject.BALANCE,
    _WARNING,
    "A readable zone has less than half the items or bytes of another one. Its reads miss more often.",
    "warm the zone, and look for restarts, evictions and clients that do not write to it",
)
NODES_UNEVEN = Fault(
    "nodes-uneven",
    Subject.BALANCE,
    _WARNING,
    "A node has less than half or more than twice the items of an average node of its zone.",
    "look for a restart of the node, evictions, and labels that differ between clients",
)
HIT_RATIOS_DIFFER = Fault(
    "hit-ratios-differ",
    Subject.BALANCE,
    _WARNING,
    "The hit ratio of a readable zone is far below that of another one.",
    "compare evictions and items of the two zones, then warm the lower one",
)
HINTS_DISK_FULL = Fault(
    "hints-disk-full",
    Subject.HINTS,
    _PROBLEM,
    "The disk or quota of the hints is full. Hints are in memory only, and a restart of the service loses them.",
    "free space on that disk, or name a file on another one in `Hints(path=...)`",
)
HINTS_DISK_LOW = Fault(
    "hints-disk-low",
    Subject.HINTS,
    _WARNING,
    "The disk has less free space than the hints of a long outage take.",
    "free space on that disk, or lower `Hints(max_bytes=...)`",
)
HINTS_READ_ONLY = Fault(
    "hints-read-only",
    Subject.HINTS,
    _PROBLEM,
    "The file system of the hints is mounted read-only.",
    "mount it writable, or name a file on another file system in `Hints(path=...)`",
)
HINTS_UNWRITABLE = Fault(
    "hints-unwritable",
    Subject.HINTS,
    _PROBLEM,
    "The user of this command cannot write the file of the hints, or its folder.",
    "give the user of the service write access to the folder and the file",
)
HINTS_NO_FOLDER = Fault(
    "hints-no-folder",
    Subject.HINTS,
    _PROBLEM,
    "The folder of the file of hints does not exist.",
    "create the folder, or correct `Hints(path=...)`",
)
HINTS_NO_JOURNAL = Fault(
    "hints-no-journal",
    Subject.HINTS,
    _PROBLEM,
    "The path leads to a folder or to a file of another kind, which the client refuses.",
    "name another file in `Hints(path=...)`",
)

FAULTS: tuple[Fault, ...] = tuple(value for value in dict(vars()).values() if isinstance(value, Fault))
"""All faults, in the order of their subjects."""


def fault_table() -> str:
    """Return the faults as the Markdown table of the docs."""
    head = ["| Name | Severity | Meaning | Fix |", "| --- | --- | --- | --- |"]
    rows = [f"| `{fault.name}` | {fault.verdict} | {fault.meaning} | {fault.fix} |" for fault in FAULTS]
    return "\n".join([*head, *rows])
