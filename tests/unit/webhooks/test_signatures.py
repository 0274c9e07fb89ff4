"""Signatures are those of the Standard Webhooks scheme."""

import pytest

from godoty_service.webhooks.signatures import SignatureRefused, new_secret, sign, signed_headers, verify

# The vector that the scheme's reference libraries test with.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, TIME, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_published_vector_is_signed_as_published() -> None:
    """So a receiver with any library of the scheme verifies it."""
    assert sign(SECRET, message_id=ID, timestamp=TIME, body=BODY) == SIGNATURE


def test_message_of_two_secrets_is_verified_by_each() -> None:
    """Each has a signature in the header."""
    secrets = [new_secret(), SECRET]
    headers = signed_headers(secrets, message_id=ID, timestamp=TIME, body=BODY)

    assert headers["webhook-signature"].split()[1] == SIGNATURE
    for each in secrets:
        verify(each, headers, BODY, now=TIME + 300)


@pytest.mark.parametrize(
    ("changes", "body", "now"),
    [
        ({}, BODY + b" ", TIME),
        ({"webhook-id": "msg_other"}, BODY, TIME),
        ({"webhook-timestamp": str(TIME + 1)}, BODY, TIME),
        ({"webhook-signature": "v1,AAAA v2,ü"}, BODY, TIME),
        ({"webhook-signature": ""}, BODY, TIME),
        ({"webhook-timestamp": "soon"}, BODY, TIME),
        ({}, BODY, TIME + 301),
        ({}, BODY, TIME - 301),
    ],
)
def test_message_that_was_changed_or_is_old_is_refused(changes: dict[str, str], body: bytes, now: float) -> None:
    """Each part of it is signed."""
    headers = signed_headers([SECRET], message_id=ID, timestamp=TIME, body=BODY) | changes

    with pytest.raises(SignatureRefused):
        verify(SECRET, headers, body, now=now)
