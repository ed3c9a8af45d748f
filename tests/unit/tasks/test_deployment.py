import asyncio
from datetime import UTC, datetime

import pytest

from amopo_core.errors import UserError
from flows.scheduled import scheduled
from tasks.deployment import deployment, deployment_name, missed, workspace_resource
from tasks.operation import Operation, Schedule

EVENING = datetime(2026, 7, 1, 23, tzinfo=UTC), datetime(2026, 7, 1, 23, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "count"),
    [
        (Schedule(cron="30 1 * * *", timezone="Europe/Berlin"), 1),  # summer time: 23:30 UTC
        (Schedule(cron="30 1 * * *", timezone="UTC"), 0),
        (Schedule(rrule="FREQ=DAILY;BYHOUR=1;BYMINUTE=30;BYSECOND=0", timezone="Europe/Berlin"), 1),
        (Schedule(cron="* * * * *", timezone="UTC"), 60),
    ],
)
def test_missed_starts_are_counted_in_the_schedules_own_time_zone(schedule, count):
    assert asyncio.run(missed([schedule], *EVENING)) == count


def test_the_deployment_has_all_schedules_and_hears_of_the_event():
    schedules = [Schedule(cron="0 3 * * *", timezone="Europe/Berlin"), Schedule(rrule="FREQ=YEARLY")]
    made = deployment(scheduled, Operation(schedules=schedules))
    [trigger] = made.triggers

    assert made.entrypoint == "flows.scheduled.scheduled"
    assert [(each.schedule.timezone, each.parameters["reason"]) for each in made.schedules] == [
        ("Europe/Berlin", "the schedule 0 3 * * * Europe/Berlin"),
        ("UTC", "the schedule FREQ=YEARLY UTC"),
    ]
    assert trigger.expect == {"amopo.feedback"}


def test_a_schedule_that_prefect_alone_takes_for_none_is_refused():
    with pytest.raises(UserError, match=r"operation\.yaml: schedules: "):
        deployment(scheduled, Operation(schedules=[Schedule(cron="0 3 LW * *")]))


def test_two_folders_of_one_name_are_two_deployments(tmp_path, monkeypatch):
    names = []
    for parent in ("one", "two"):
        folder = tmp_path / parent / "amo po%"
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        names.append((deployment_name(), workspace_resource()))

    assert len({name for name, _ in names}) == len({resource for _, resource in names}) == 2
    assert all(name.startswith("amo-po--") for name, _ in names)
