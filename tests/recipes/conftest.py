import pytest


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory) -> str:
    """One cache of small rooms for all smoke runs."""
    return str(tmp_path_factory.mktemp("rooms"))
