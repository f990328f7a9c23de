"""Name server on a loopback port, for UDP and TCP. It answers from a table of records, and misbehaves on demand."""

import asyncio
import contextlib

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.asyncresolver import Resolver

IN = dns.rdataclass.IN
CNAME = dns.rdatatype.CNAME
SRV = dns.rdatatype.SRV
MOST_UDP_BYTES = 512
LONGEST_CHAIN = 20

HOST = "127.0.0.1"


class FakeDns:
    """A name server. Faults apply to all queries, or to those for one name or type."""

    def __init__(self):
        self.asked = []
        """Name, type and transport of each query."""
        self.adds_addresses = True
        """False if answers with SRV records lack the addresses of the targets."""
        self.rotates = True
        """True if each answer begins with the next record."""
        self._records = {}
        self._faults = {}
        self._turn = 0
        self._news = asyncio.Event()
        self._writers = set()

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        for _ in range(50):  # another process may have the TCP port of that number
            self._udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self), (HOST, 0))
            self.port = self._udp.get_extra_info("sockname")[1]
            try:
                self._tcp = await asyncio.start_server(self._serve_tcp, HOST, self.port)
            except OSError:
                self._udp.close()
            else:
                return self
        raise OSError("no port is free for both UDP and TCP")

    async def __aexit__(self, *_):
        self._udp.close()
        self._tcp.close()
        for writer in self._writers:
            writer.close()
        await self._tcp.wait_closed()
        await asyncio.sleep(0)

    # Its contents.

    def put(self, name, kind, *values, ttl=30):
        """Replace the records of a name and type."""
        self._records[_name(name), kind] = (ttl, values)

    def drop(self, name):
        """Delete all records of a name."""
        for known in [known for known in self._records if known[0] == _name(name)]:
            del self._records[known]

    def fail(self, fault, name=None, kind=None):
        """Misbehave. `fault` is a key of `FAULTS`, or None for an end of the fault."""
        assert fault is None or fault in FAULTS, fault
        self._faults[None if name is None else _name(name), kind] = fault

    def resolver(self, *, seconds=5.0, search=(), ndots=None):
        """Return a resolver that asks this server for up to `seconds`, with one repetition."""
        resolver = Resolver(configure=False)
        resolver.nameservers = [HOST]
        resolver.port = self.port
        resolver.lifetime = seconds
        resolver.timeout = seconds * 0.6
        resolver.domain = dns.name.root
        resolver.search = [_name(suffix) for suffix in search]
        resolver.ndots = ndots
        return resolver

    async def queries(self, number):
        """Wait for a number of further queries."""
        until = len(self.asked) + number
        while len(self.asked) < until:
            self._news.clear()
            await self._news.wait()

    @property
    def names(self):
        return [f"{kind} {name}" for name, kind, _ in self.asked]

    # Its replies.

    def replies(self, wire, transport):
        """Return the datagrams or messages to send for a query."""
        query = dns.message.from_wire(wire)
        (question,) = query.question
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((str(question.name).rstrip("."), kind, transport))
        self._news.set()
        fault = None
        for place in ((question.name, kind), (question.name, None), (None, kind), (None, None)):
            fault = fault or self._faults.get(place)
        answer = self._answer(query)
        return [answer] if fault is None else list(FAULTS[fault](query, answer, transport))

    def _answer(self, query):
        response = _response(query)
        (question,) = query.question
        name = question.name
        for _ in range(LONGEST_CHAIN):
            found = self._rrset(name, question.rdtype)
            alias = self._rrset(name, CNAME)
            if found is not None:
                response.answer.append(found)
                if question.rdtype == SRV and self.adds_addresses:
                    response.additional += self._addresses(found)
                break
            if alias is None:
                if all(known != name for known, _ in self._records):
                    response.set_rcode(dns.rcode.NXDOMAIN)
                break
            response.answer.append(alias)
            name = alias[0].target
        self._turn += 1
        return response

    def _addresses(self, services):
        targets = dict.fromkeys(record.target for record in services)
        found = [self._rrset(target, kind) for target in targets for kind in (dns.rdatatype.A, dns.rdatatype.AAAA)]
        return [rrset for rrset in found if rrset is not None]

    def _rrset(self, name, kind):
        ttl, values = self._records.get((name, dns.rdatatype.to_text(kind)), (0, ()))
        if not values:
            return None
        first = self._turn % len(values) if self.rotates else 0
        return dns.rrset.from_text(name, ttl, IN, kind, *values[first:], *values[:first])

    async def _serve_tcp(self, reader, writer):
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                for reply in self.replies(await reader.readexactly(size), "tcp"):
                    wire = reply if isinstance(reply, bytes) else reply.to_wire()
                    writer.write(len(wire).to_bytes(2, "big") + wire)
        self._writers.discard(writer)
        writer.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server):
        self._server = server

    def connection_made(self, transport):
        self._transport = transport

    def datagram_received(self, data, address):
        for reply in self._server.replies(data, "udp"):
            wire = reply if isinstance(reply, bytes) else reply.to_wire(max_size=65535)
            if len(wire) > MOST_UDP_BYTES and not isinstance(reply, bytes):
                wire = _cut(reply).to_wire()
            self._transport.sendto(wire, address)


def _name(text):
    return dns.name.from_text(str(text))


def _response(query):
    response = dns.message.make_response(query)
    response.flags |= dns.flags.RA
    return response


def _cut(answer):
    """Return the answer as a server sends it that has no room: marked, and without its records."""
    answer.flags |= dns.flags.TC
    answer.sections[1:] = [], [], []
    return answer


def _refuse(rcode):
    def replies(query, answer, transport):
        response = _response(query)
        response.set_rcode(rcode)
        return [response]

    return replies


def _wrong_id(query, answer, transport):
    answer.id ^= 1
    return [answer]


def _wrong_question(query, answer, transport):
    other = dns.message.make_query("other.example", query.question[0].rdtype)
    other.id = query.id
    response = _response(other)
    response.answer = answer.answer
    return [response]


def _no_response(query, answer, transport):
    return [query]  # an echo, without the bit that marks a response


def _unreadable(query, answer, transport):
    return [answer.to_wire()[:-3]]


FAULTS = {
    "hang": lambda query, answer, transport: [],
    "hang on tcp": lambda query, answer, transport: [_cut(answer)] if transport == "udp" else [],
    "servfail": _refuse(dns.rcode.SERVFAIL),
    "refused": _refuse(dns.rcode.REFUSED),
    "nxdomain": _refuse(dns.rcode.NXDOMAIN),
    "empty": _refuse(dns.rcode.NOERROR),
    "garbage": lambda query, answer, transport: [b"\xff" * 40],
    "no bytes": lambda query, answer, transport: [b""],
    "unreadable": _unreadable,
    "wrong id": _wrong_id,
    "wrong question": _wrong_question,
    "an echo": _no_response,
    "lies first": lambda query, answer, transport: [
        b"\xff" * 40, b"", *(_wrong_question(query, _copy(answer), "")), *_no_response(query, answer, ""), *_wrong_id(query, _copy(answer), ""), answer,
    ],
    "truncated": lambda query, answer, transport: [_cut(answer)] if transport == "udp" else [answer],
    "always truncated": lambda query, answer, transport: [_cut(answer)],
}  # fmt: skip


def _copy(answer):
    return dns.message.from_wire(answer.to_wire())
