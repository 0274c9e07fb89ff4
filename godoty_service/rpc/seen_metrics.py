"""The metrics of the sessions that were asked for last: what has not changed is not converted again."""

from collections import OrderedDict
from dataclasses import dataclass

from godoty.v1 import agent_service_pb2 as pb

from godoty_service.rpc.metering_messages import timestamp
from godoty_service.sessions.looks import Version
from godoty_service.sessions.session import Session

Key = tuple[str, str]  # the tenant, and the caller's id of the session

_MOST = 1_000  # sessions: of some 4 KB each


@dataclass(frozen=True, slots=True)
class Seen:
    """Metrics as they were told.

    Attributes:
        version: Of the session.
        body: The message.
    """

    version: Version
    body: bytes

    def message(self, session: Session) -> pb.GetSessionMetricsResponse:
        """Tell them again; a turn that cost nothing may have used the session since."""
        message = pb.GetSessionMetricsResponse.FromString(self.body)
        message.update_time.CopyFrom(timestamp(session.update_time))
        return message


class SeenMetrics:
    """Metrics by session, the least used of them forgotten first."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Key, Seen] = OrderedDict()

    def get(self, key: Key) -> Seen | None:
        """What was told of a session."""
        seen = self._seen.get(key)
        if seen is not None:
            self._seen.move_to_end(key)
        return seen

    def keep(self, key: Key, session: Session, message: pb.GetSessionMetricsResponse) -> None:
        """Keep what is told of a session whose every entry is final and folded."""
        self._seen[key] = Seen((session.uid, session.fold_revision), message.SerializeToString())
        self._seen.move_to_end(key)
        if len(self._seen) > _MOST:
            self._seen.popitem(last=False)
