from pathlib import Path

import pytest

from amopo_core.errors import UserError
from tasks.operation import Operation, read_operation


def written(folder: Path, text: str) -> Path:
    path = folder / "operation.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        read_operation(written(folder, text))
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing yet\n\n  # nor here\n"])
def test_a_file_without_settings_is_as_good_as_none(tmp_path, text):
    assert read_operation(tmp_path / "none.yaml") == read_operation(written(tmp_path, text)) == Operation()


def test_the_servers_become_the_variables_that_say_the_same(tmp_path):
    file = written(tmp_path, "servers:\n  prefect_api_url: http://127.0.0.1:4200/api\n")

    assert read_operation(file).servers.variables == {"PREFECT_API_URL": "http://127.0.0.1:4200/api"}


def test_a_misspelt_key_in_a_list_is_named_with_its_line_and_its_likeness(tmp_path):
    text = 'schedules:\n  - cron: "0 3 * * *"\n  - crom: "0 4 * * *"\n'

    assert "operation.yaml:3: schedules.1.crom: no such key; did you mean cron?" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schedules: [{timezone: UTC}]", "give either `cron` or `rrule`"),
        ('schedules: [{cron: "0 3 * * *", rrule: FREQ=DAILY}]', "give either `cron` or `rrule`"),
        ('schedules: [{cron: "0 3 * *"}]', "schedules.0.cron: it is '0 3 * *'; expected five fields"),
        ('schedules: [{cron: "0 3 * * *", timezone: Europe/Atlantis}]', "'Europe/Atlantis' is no time zone"),
        ('schedules: [{cron: "0 3 * * *", timezone: ../etc}]', "'../etc' is no time zone"),
        (
            'schedules: [{cron: "61 * * * *"}]',
            "schedules.0.cron: it is '61 * * * *': bad minute; expected, for example",
        ),
        ("schedules: [{rrule: FREQ=SOMETIMES}]", "schedules.0.rrule: it is 'FREQ=SOMETIMES': "),
        ("schedules: [{rrule: whenever}]", "schedules.0.rrule: it is 'whenever': "),
        ("watch: {min_rows: 0}", "watch.min_rows: Input should be greater than or equal to 1"),
        ("watch: {max_hours: 0}", "watch.max_hours: Input should be greater than 0"),
        ("overlap: queue", "overlap: Input should be 'wait' or 'drop'"),
        ("notifications: [{events: [failure]}]", "give either `url_env` or `secret_block`"),
        ("notifications: [{url_env: 'slack://a/b/c'}]", "notifications.0.url_env: String should match pattern"),
        ("notifications: [{url_env: A, events: [failed]}]", "notifications.0.events.0: Input should be 'failure'"),
        ("servers: {prefect_api_url: 127.0.0.1:4200}", "servers.prefect_api_url: String should match pattern"),
        ("servers: {mlflow_tracking_uri: '127.0.0.1:5000'}", "a server's address begins with http:// or https://"),
        ("- cron", "holds no sections"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(tmp_path, text, said):
    message = refused(tmp_path, text)

    assert said in message
    assert message.startswith(str(tmp_path / "operation.yaml"))


def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path):
    text = "servers:\n  mlflow_tracking_uri: postgresql://me:hunter2@db/mlflow\n"
    message = refused(tmp_path, text)

    assert "servers.mlflow_tracking_uri: it holds a password, and git keeps this file" in message
    assert "hunter2" not in message
