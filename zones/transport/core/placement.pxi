# Nodes of keys by ketama. See `placement.py`.

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* MD5 as RFC 1321 describes it. The ring needs the first word of the digest alone, and a call of hashlib costs more. */

    static const uint32_t md5_constants[64] = {
        0xd76aa478u, 0xe8c7b756u, 0x242070dbu, 0xc1bdceeeu, 0xf57c0fafu, 0x4787c62au, 0xa8304613u, 0xfd469501u,
        0x698098d8u, 0x8b44f7afu, 0xffff5bb1u, 0x895cd7beu, 0x6b901122u, 0xfd987193u, 0xa679438eu, 0x49b40821u,
        0xf61e2562u, 0xc040b340u, 0x265e5a51u, 0xe9b6c7aau, 0xd62f105du, 0x02441453u, 0xd8a1e681u, 0xe7d3fbc8u,
        0x21e1cde6u, 0xc33707d6u, 0xf4d50d87u, 0x455a14edu, 0xa9e3e905u, 0xfcefa3f8u, 0x676f02d9u, 0x8d2a4c8au,
        0xfffa3942u, 0x8771f681u, 0x6d9d6122u, 0xfde5380cu, 0xa4beea44u, 0x4bdecfa9u, 0xf6bb4b60u, 0xbebfbc70u,
        0x289b7ec6u, 0xeaa127fau, 0xd4ef3085u, 0x04881d05u, 0xd9d4d039u, 0xe6db99e5u, 0x1fa27cf8u, 0xc4ac5665u,
        0xf4292244u, 0x432aff97u, 0xab9423a7u, 0xfc93a039u, 0x655b59c3u, 0x8f0ccc92u, 0xffeff47du, 0x85845dd1u,
        0x6fa87e4fu, 0xfe2ce6e0u, 0xa3014314u, 0x4e0811a1u, 0xf7537e82u, 0xbd3af235u, 0x2ad7d2bbu, 0xeb86d391u
    };
    static const unsigned char md5_turns[16] = {7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21};

    static void md5_block(uint32_t state[4], const unsigned char *block)
    {
        uint32_t words[16], a = state[0], b = state[1], c = state[2], d = state[3];
        int i;
        for (i = 0; i < 16; i++)
            words[i] = (uint32_t)block[4 * i] | (uint32_t)block[4 * i + 1] << 8 | (uint32_t)block[4 * i + 2] << 16
                       | (uint32_t)block[4 * i + 3] << 24;
        for (i = 0; i < 64; i++) {
            uint32_t mixed;
            int word, turn;
            if (i < 16) {
                mixed = (b & c) | (~b & d);
                word = i;
            } else if (i < 32) {
                mixed = (d & b) | (~d & c);
                word = (5 * i + 1) & 15;
            } else if (i < 48) {
                mixed = b ^ c ^ d;
                word = (3 * i + 5) & 15;
            } else {
                mixed = c ^ (b | ~d);
                word = (7 * i) & 15;
            }
            turn = md5_turns[(i >> 4) * 4 + (i & 3)];
            mixed += a + md5_constants[i] + words[word];
            a = d;
            d = c;
            c = b;
            b += mixed << turn | mixed >> (32 - turn);
        }
        state[0] += a;
        state[1] += b;
        state[2] += c;
        state[3] += d;
    }

    static uint32_t md5_first_word(const unsigned char *data, size_t size)
    {
        uint32_t state[4] = {0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u};
        unsigned char last[128] = {0};
        uint64_t bits = (uint64_t)size * 8;
        size_t rest = size % 64, blocks = size / 64, tail = rest < 56 ? 64 : 128, i;
        for (i = 0; i < blocks; i++)
            md5_block(state, data + 64 * i);
        memcpy(last, data + 64 * blocks, rest);
        last[rest] = 0x80;
        for (i = 0; i < 8; i++)
            last[tail - 8 + i] = (unsigned char)(bits >> (8 * i));
        for (i = 0; i < tail; i += 64)
            md5_block(state, last + i);
        return state[0];
    }
    """
    unsigned int md5_first_word(const unsigned char *data, size_t size) nogil


cdef inline unsigned int _owner_of(bytes key, const unsigned int *points, const unsigned int *owners, Py_ssize_t count) noexcept:
    """Return the index of the node of a key, on a ring of `count` points."""
    cdef unsigned int position = md5_first_word(<const unsigned char *>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = count
    cdef Py_ssize_t middle
    while low < high:
        middle = (low + high) // 2
        if points[middle] < position:
            low = middle + 1
        else:
            high = middle
    return owners[low if low < count else 0]


def group_by_owner(keys, given, const unsigned int[::1] points not None, const unsigned int[::1] owners not None):
    """Return the keys of each node with the items of `given`. See `placement.group_by_owner`."""
    cdef dict groups = {}
    cdef bytes key
    cdef Py_ssize_t count = points.shape[0]
    cdef Py_ssize_t index = 0
    if count == 0 or owners.shape[0] != count:
        raise ValueError("a ring has at least one point, and an owner for each")
    if len(keys) != len(given):
        raise ValueError("each key has one item")
    for key in keys:
        if key is None:
            raise TypeError("a key is None")
        owner = _owner_of(key, &points[0], &owners[0], count)
        found = groups.get(owner)
        if found is None:
            groups[owner] = ([key], [given[index]])
        else:
            (<list>(<tuple>found)[0]).append(key)
            (<list>(<tuple>found)[1]).append(given[index])
        index += 1
    return groups
