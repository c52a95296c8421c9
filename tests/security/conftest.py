import pytest
from starlette.testclient import TestClient

from tests.conftest import People
from tests.security.world import World, build_world
from visionsuit.runtime import Runtime


@pytest.fixture
def world(runtime: Runtime, people: People, client: TestClient) -> World:
    return build_world(runtime, people, client)
