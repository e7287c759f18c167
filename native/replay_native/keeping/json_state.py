"""The state of a JSON text that is being digested, and the functions that mix its hashes; see `json_digest`."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel

JSON_FIELDS = [
    ("json_state", "i8"), ("depth", "i8"), ("pointer", "u8"), ("sum", "u8"), ("is_key", "i8"), ("letters", "i8"),
    ("container", "i8"),
    ("hash", "u8"), ("word", "u8"), ("size", "i8"), ("unit", "i8"), ("unit_digits", "i8"), ("surrogate", "i8"),
    ("negative", "i8"), ("digits", "u8"), ("digit_count", "i8"), ("significant", "u8"), ("significant_count", "i8"),
    ("point", "i8"), ("exponent", "i8"), ("exponent_sign", "i8"),
]  # fmt: skip
"""The state between two pieces.

`container` is 1 if the text has an object or array. `letters` is the number of letters of true, false or null read
so far. A string has its `hash` so far, the `word` of its last bytes, its `size`, and an escape (`unit`, and a
`surrogate` whose other half is missing). A number has the hash and count of its digits from the first that is not 0
(`digits`), the same up to the last that is not 0 (`significant`), the number of digits after its `point`, and its
exponent.
"""

JSON = np.dtype(JSON_FIELDS)

# Values of json_state.
VALUE, VALUE_OR_END, KEY_OR_END, KEY, COLON, AFTER, ENDED, FAILED = range(8)
TRUE, FALSE, NULL = 8, 9, 10
STRING, ESCAPE, UNICODE, STRING_ENDS = range(11, 15)
MINUS, ZERO, INTEGER, POINT, FRACTION, EXPONENT, EXPONENT_SIGN, EXPONENT_DIGIT, NUMBER_ENDS = range(15, 24)
WORD_ENDS = 24

P1, P2, P3 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
ROOT, TEXT, INDEX = (
    np.uint64(0x8F3C1B5D2A49E670),
    np.uint64(0x6A09E667F3BCC909),
    np.uint64(0xBB67AE8584CAA73B),
)
"""Initial hashes of the whole text, of a string, and of an element's place."""

NO_TAG = np.uint64(0)
(TAG_STRING, TAG_NUMBER, TAG_TRUE, TAG_FALSE, TAG_NULL, TAG_OBJECT, TAG_ARRAY) = (
    np.uint64(tag)
    for tag in (
        0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1, 0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B,
        0x5BE0CD19137E2179, 0x428A2F98D728AE22,
    )
)  # fmt: skip
"""The kinds of leaves, which are mixed into their hashes. Objects and arrays are leaves only if they are empty."""

QUOTE, BACKSLASH, MINUS_SIGN, DIGIT_0, DIGIT_9 = 34, 92, 45, 48, 57


@kernel(inlined=True)
def mix(hashed, word):
    """Add a word to a hash."""
    hashed += word * P2
    return ((hashed << np.uint64(31)) | (hashed >> np.uint64(33))) * P1


@kernel(inlined=True)
def spread(hashed):
    """Spread every bit of a hash over the whole hash."""
    hashed = (hashed ^ (hashed >> np.uint64(33))) * P2
    hashed = (hashed ^ (hashed >> np.uint64(29))) * P3
    return hashed ^ (hashed >> np.uint64(32))
