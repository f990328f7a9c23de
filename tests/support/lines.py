"""Lines of the meta protocol as a connection sends them, without the opaque."""

MODES = {"set": b"", "add": b" ME", "replace": b" MR", "append": b" MA", "prepend": b" MP"}


def get_line(key, fields):
    return b"mg %b %b" % (key, fields)


def store_line(key, size, *, flags=0, ttl=0, mode="set", compare=None, cas=None):
    line = b"ms %b %d T%d F%d" % (key, size, ttl, flags)
    line += b"" if compare is None else b" C%d" % compare
    line += b"" if cas is None else b" E%d" % cas
    return line + MODES[mode]
