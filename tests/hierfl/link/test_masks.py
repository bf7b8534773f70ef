"""Masks: known answers, and the laws of sums that were masked: the bits of plain ones, in any order, at both widths."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.learning.ring import Accumulator, Grid, PartialSum
from hierfl.learning.state import Layout
from hierfl.link.masks import Terms, masked, new_secret, pair_key, public_of

MEMBERS = ("world/a", "world/b", "world/c", "world/d")
TERMS = Terms("heart", "config", "run-1", "world", 3, "world", 3, 100, bytes(32), (3, 1, "int32"), bytes(16), MEMBERS)


def keys_of(terms: Terms, secrets: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    return {
        own: {
            other: pair_key(terms, secrets[own], own, other, public_of(secrets[other]))
            for other in terms.members
            if other != own
        }
        for own in terms.members
    }


def test_a_public_key_is_that_of_rfc_7748() -> None:
    """Section 6.1: Alice's."""
    secret = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    assert public_of(secret).hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"


def test_a_mask_is_aes_in_counter_mode_under_hkdf_of_the_pair() -> None:
    """Written out once more with HMAC and single blocks of AES."""
    secrets = {name: bytes([n + 1]) * 32 for n, name in enumerate(MEMBERS)}
    key = keys_of(TERMS, secrets)["world/a"]["world/b"]
    assert key == keys_of(TERMS, secrets)["world/b"]["world/a"]
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    public = {name: public_of(secret) for name, secret in secrets.items()}
    shared = X25519PrivateKey.from_private_bytes(secrets["world/a"]).exchange(
        X25519PublicKey.from_public_bytes(public["world/b"])
    )
    parts = [b"hierfl masks 1: a pair", b"world/a", public["world/a"], b"world/b", public["world/b"]]
    info = hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).digest()
    pseudo_random = hmac.digest(TERMS.digest, shared, "sha256")
    assert key == hmac.digest(pseudo_random, info + b"\x01", "sha256")
    block = Cipher(AES256(key), ECB()).encryptor()
    stream = b"".join(block.update(counter.to_bytes(16, "big")) for counter in range(2))
    floats, ints = masked(np.zeros(3, np.int32), np.zeros(1, np.int64), "world/a", MEMBERS[:2], {"world/b": key})
    assert floats.tobytes() + ints.tobytes() == stream[:20]
    minus, _ = masked(np.zeros(3, np.int32), np.zeros(1, np.int64), "world/b", MEMBERS[:2], {"world/a": key})
    assert not (floats + minus).any()


def test_known_answers() -> None:
    """Terms, a signed statement, a key and a mask, for other versions to keep to."""
    secrets = {name: bytes([n + 1]) * 32 for n, name in enumerate(MEMBERS)}
    key = keys_of(TERMS, secrets)["world/a"]["world/b"]
    floats, _ = masked(np.arange(3, dtype=np.int32), np.zeros(1, np.int64), "world/a", MEMBERS[:2], {"world/b": key})
    found = [TERMS.digest.hex(), TERMS.said("world/a", 7, bytes(32)).hex(), key.hex(), floats.tolist()]
    assert found == [
        "6d0cb0ef1a074a2ad21ddc6b39aab79fad3380e66f7e7ab460712189164d0f12",
        "f3c4f672dfe1d2b9f7ba1c13ee95ec69f7fdb4dd595d2c25f34360f84b7e5aa8",
        "7f27993d06744b082a701874676bdf1d5e8756c207c9b18b9bb5bb9e303d4c75",
        [-1306782201, 2142105216, -327881710],
    ]


@settings(max_examples=25)
@given(
    st.integers(3, 6),
    st.sampled_from([32, 64]),
    st.integers(0, 40),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_a_masked_sum_has_the_bits_of_the_plain_one_in_any_order(
    num: int, width: int, size: int, num_ints: int, chance: object
) -> None:
    rng = np.random.default_rng(chance.getrandbits(32))  # type: ignore[attr-defined]
    members = tuple(f"world/{n}" for n in range(num))
    grid = Grid(width, 8.0, 10 * num)
    layout = Layout.of({"w": ((size,), "float32"), **{f"n{k}": ((), "int64") for k in range(num_ints)}})
    terms = replace(TERMS, members=members, shape=(size, num_ints, str(grid.integer)))
    most = 2 ** (grid.bits - 2) // num
    plain = {
        one: PartialSum(
            rng.integers(-most, most, size).astype(grid.integer), rng.integers(-(2**40), 2**40, num_ints), 10
        )
        for one in members
    }
    keys = keys_of(terms, {one: rng.bytes(32) for one in members})
    sent = {
        one: PartialSum(*masked(part.floats, part.ints, one, members, keys[one]), 10) for one, part in plain.items()
    }

    def total(parts: dict[str, PartialSum], order: list[str]) -> PartialSum:
        found = Accumulator(grid, layout)
        for one in order:
            found.add_sum(parts[one])
        return found.total()

    order = list(members)
    wanted = total(plain, order)
    rng.shuffle(order)
    found = total(sent, order)
    assert found.weight == wanted.weight and found.floats.dtype == wanted.floats.dtype
    assert np.array_equal(found.floats, wanted.floats) and np.array_equal(found.ints, wanted.ints)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_less_than_all_of_a_sum_is_noise(dtype: type) -> None:
    """Of zeros: every proper part of the masked updates has numbers all over the ring."""
    zeros, none = np.zeros(4096, dtype), np.zeros(2, np.int64)
    keys = keys_of(TERMS, {one: new_secret() for one in MEMBERS})
    sent = {one: masked(zeros, none, one, MEMBERS, keys[one])[0] for one in MEMBERS}
    for num in range(1, len(MEMBERS)):
        for some in itertools.combinations(MEMBERS, num):
            part = np.sum([sent[one] for one in some], axis=0, dtype=dtype).view(f"u{np.dtype(dtype).itemsize}")
            top = (part >> np.array(8 * part.itemsize - 4, part.dtype)).astype(int)  # 16 bins, 256 expected in each
            assert (np.abs(np.bincount(top, minlength=16) - 256) < 110).all(), some
    assert not np.sum([sent[one] for one in MEMBERS], axis=0, dtype=dtype).any()
    assert not zeros.any(), "what is masked stays as it was"


@pytest.mark.parametrize(
    "changed",
    [
        {"round_number": 4},
        {"model": b"\x01" + bytes(31)},
        {"attempt": b"\x01" + bytes(15)},
        {"members": MEMBERS[:3]},
        {"run": "run-2"},
        {"config": "other"},
        {"total_weight": 101},
        {"hub": "world/x"},
        {"shape": (4, 1, "int32")},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_members_that_do_not_agree_have_no_key_in_common(changed: dict[str, object]) -> None:
    other = replace(TERMS, **changed)  # type: ignore[arg-type]
    a, b = new_secret(), new_secret()
    assert pair_key(TERMS, a, "world/a", "world/b", public_of(b)) == pair_key(
        TERMS, b, "world/b", "world/a", public_of(a)
    )
    assert pair_key(TERMS, a, "world/a", "world/b", public_of(b)) != pair_key(
        other, b, "world/b", "world/a", public_of(a)
    )
    assert TERMS.said("world/a", 1, public_of(a)) != other.said("world/a", 1, public_of(a))


def test_a_public_key_of_small_order_is_refused() -> None:
    with pytest.raises(ValueError, match="shared key"):
        pair_key(TERMS, new_secret(), "world/a", "world/b", bytes(32))
