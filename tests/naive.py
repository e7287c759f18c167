

def zigzag_leb128(payload: bytes) -> list[int]:
    """The numbers of a V2 histogram payload: 7 bits a byte, the ninth byte whole, sign in the lowest bit."""
    numbers, word, bytes_taken = [], 0, 0
    for byte in payload:
        if bytes_taken == 8:
            word |= byte << 56
        else:
            word |= (byte & 0x7F) << (7 * bytes_taken)
        if bytes_taken == 8 or byte < 0x80:
            numbers.append(-(word >> 1) - 1 if word & 1 else word >> 1)
            word, bytes_taken = 0, 0
        else:
            bytes_taken += 1
    if bytes_taken:
        raise ValueError("cut short")
    return numbers


def counts_of(numbers: list[int]) -> list[int]:
    """Counts from V2 numbers: a negative one is that many zeros."""
    return [count for number in numbers for count in ([number] if number >= 0 else [0] * -number)]
