"""How many devices the event log has seen a day: the size of a fleet whose telemetry has not been collected yet."""

from pathlib import Path

from pocketloop.data.event_log import open_log


def daily_devices(log: Path, days: int = 28) -> int:
    """Mean number of distinct devices a day over the newest `days` days that hold events; 0 for an empty log.

    Events are conversations, and not every active device has one every day: read it as a lower bound.
    """
    if not (log / "log.sqlite").is_file():
        return 0
    counted = (
        "SELECT COUNT(DISTINCT device_id) AS n FROM events GROUP BY substr(ts, 1, 10) ORDER BY substr(ts, 1, 10) DESC"
    )
    with open_log(log) as connection:
        (mean,) = connection.execute(f"SELECT AVG(n) FROM ({counted} LIMIT ?)", (days,)).fetchone()  # noqa: S608
    return round(mean or 0)
