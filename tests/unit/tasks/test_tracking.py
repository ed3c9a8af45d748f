from tasks.tracking import flat


def test_nested_sections_become_dotted_names() -> None:
    nested = {"train": {"epochs": 1}, "views": {"generic": True}, "weights": {}, "seed": 0}

    assert dict(flat(nested)) == {"train.epochs": 1, "views.generic": True, "weights": {}, "seed": 0}
