"""The Prefect server that a command talks to; Prefect is imported when it is needed, which takes seconds."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread

from distill_core.errors import SourceUnreachable


def check_server() -> None:
    """Check that the Prefect server of the settings answers; where none is set, there is nothing to ask.

    Before anything that takes seconds to import, and without the minutes of retries that Prefect's
    own client makes.

    Raises:
        SourceUnreachable: it does not.
    """
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    url = PREFECT_API_URL.value()
    if url is None:
        return
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        SyncPrefectClient(url, httpx_settings={"timeout": 5}) as client,
    ):
        error = client.api_healthcheck()
    if error is not None:
        raise SourceUnreachable(
            f"PREFECT_API_URL: {url} does not answer ({error}); start it with `prefect server start`, or "
            "unset PREFECT_API_URL for the embedded one"
        )


def start_embedded_server() -> Callable[[], None]:
    """Start Prefect's embedded server where no other is configured; it ends with this process.

    It takes as long to start as this process to import what a run needs, so both go on at once.

    Returns:
        What waits until it answers, and raises `SourceUnreachable` if it does not in time.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    answered: Future[None] = Future()

    def start() -> None:
        try:
            with get_client(sync_client=True):
                answered.set_result(None)
        except Exception as error:
            answered.set_exception(error)

    def wait() -> None:
        try:
            answered.result()
        except RuntimeError as error:
            raise SourceUnreachable(
                f"PREFECT_API_URL: is not set, and Prefect's embedded server does not start ({error}); "
                "run `prefect server start` to see why, and set PREFECT_API_URL"
            ) from None

    if PREFECT_API_URL.value() is None:
        # Not in the thread, which would import it beside what the caller imports: of modules that
        # import each other, one of the two could meet a half.
        import prefect.server.api.server  # noqa: F401

        # A daemon: a command that is stopped meanwhile does not wait for it.
        Thread(target=start, daemon=True).start()
    else:
        answered.set_result(None)
    return wait
