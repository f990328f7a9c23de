# cython: language_level=3, wraparound=False, cdivision=True, auto_pickle=False, nonecheck=True
r"""Compiled form of the core: the decoder, the exchange of requests and replies, and the encoder of batches.

Each part has a twin in Python with the same rules: `evcache.zones.protocol.decoder`, and the files beside this one. One set of tests
runs on both forms, and a differential test compares them on the same bytes. `evcache.zones.transport.core.selected` chooses the
form that runs.

The module does not declare that it runs without the GIL, so a free-threaded interpreter turns the GIL on when it imports it.

Parsing is driven by lengths: each look at a byte is within the bytes of the chunk, and numbers have a bounded count of digits.
Each index into a list or tuple is checked, which costs next to nothing.
"""

cimport cython
from cpython.array cimport array, clone
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.dict cimport PyDict_GetItemWithError
from cpython.exc cimport PyErr_Clear, PyErr_Occurred
from libc.string cimport memchr, memcmp, memcpy

from array import array as _new_array
from asyncio import CancelledError, InvalidStateError, get_running_loop
from collections import deque

from evcache.zones.errors import CacheError, ConnectionLost, NodeUnavailable, ProtocolError
from evcache.zones.protocol.decoder import MAX_LANDING_BYTES as _MAX_LANDING_BYTES
from evcache.zones.protocol.decoder import MIN_LANDING_BYTES as _MIN_LANDING_BYTES
from evcache.zones.protocol.decoder import MAX_LINE_BYTES, MAX_SIZE_DIGITS, MAX_VALUE_BYTES, WITHOUT_VALUE
from evcache.zones.protocol.fields import READ_FIELDS
from evcache.zones.protocol.fields import NO_FLAGS as _NO_FLAGS
from evcache.zones.protocol.operations import STUB_SECONDS as _STUB_SECONDS
from evcache.zones.protocol.operations import THREE_COPIES_MAX_BYTES as _THREE_COPIES_MAX_BYTES
from evcache.zones.protocol.operations import EncodedStore
from evcache.zones.protocol.packet import LARGE_BYTES as _LARGE_BYTES
from evcache.zones.protocol.packet import Packet, runs
from evcache.zones.protocol.replies import Hit, Keyed, Reply
from evcache.zones.transport.in_flight import ExpectRead, ExpectReply, ExpectStore, check_ours, is_unserved, unexpected
from evcache.zones.transport.batches import ExpectHits, ExpectValues
from evcache.zones.transport.core.encoding import encode_gets
from evcache.zones.transport.core.encoding import GETS_LINE_BYTES as _GETS_LINE_BYTES
from evcache.zones.transport.core.write_queue import EAGER_REQUESTS as _EAGER_REQUESTS

cdef extern from "Python.h":
    ctypedef struct PyTypeObject
    object PyType_GenericAlloc(PyTypeObject *type, Py_ssize_t size)
    void PyObject_GC_UnTrack(PyObject *thing)
    void PyTuple_SET_ITEM(object tuple, Py_ssize_t index, PyObject *item)
    void Py_INCREF(object thing)
    bint PyUnicode_IS_ASCII(object text)
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    unsigned long long PyLong_AsUnsignedLongLong(object number)
    object PyContext_CopyCurrent()
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1

cdef extern from *:
    """
    #if PY_VERSION_HEX >= 0x030E0000
    #define EVCACHE_CLEAR_HASH(tuple) (((PyTupleObject *)(tuple))->ob_hash = -1)
    #else
    #define EVCACHE_CLEAR_HASH(tuple) ((void)0)
    #endif
    """
    void EVCACHE_CLEAR_HASH(PyObject *tuple)

ctypedef unsigned long long u64

cdef long long NO_FLAGS = _NO_FLAGS
cdef Py_ssize_t MIN_LANDING_BYTES = _MIN_LANDING_BYTES
cdef Py_ssize_t MAX_LANDING_BYTES = _MAX_LANDING_BYTES
cdef Py_ssize_t GETS_LINE_BYTES = _GETS_LINE_BYTES
cdef array _CAS = _new_array("Q")

include "decoder.pxi"
include "encoding.pxi"
include "stores.pxi"
include "coroutine.pxi"
include "awaitable.pxi"
include "read.pxi"
include "write_queue.pxi"
include "exchange.pxi"
include "matching.pxi"
include "looks.pxi"
include "placement.pxi"
include "ordinary_read.pxi"
include "waiters.pxi"
include "store_zones.pxi"
