"""Runs the stack of local.stack until Ctrl-C: `make local`."""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

from local.aws import CREDENTIALS, isolated_environment
from local.emulator import EmulatorError
from local.gateway import listen
from local.stack import LocalError, Stack, local_stack
from local.storage import ROOT
from settings import DEFAULT_MODEL

SAMPLE = "web/samples/cat.jpg"

# The bucket that requests and backfills may name, with the sample in it.
PHOTOS = "photos"


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the API and classify uploads on this machine, without Docker.")
    parser.add_argument("--port", type=int, default=8080, help="where the API listens (default: 8080)")
    parser.add_argument("--workers", type=_count, default=1, help="batches that are classified at a time (default: 1)")
    given = parser.parse_args()
    bundle = Path(os.environ.get("LITELENS_BUNDLE") or ROOT / "models" / DEFAULT_MODEL)
    _forget_the_users_aws()
    _show_progress()
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.default_int_handler)
    try:
        listen(given.port, "local").close()
        _run(bundle, given.port, given.workers)
    except (EmulatorError, LocalError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("it must be a whole number above 0")
    return int(text)


def _run(bundle: Path, port: int, workers: int) -> None:
    with (
        local_stack(bundle, workers=workers, parameters={"ImageBuckets": PHOTOS}) as stack,
        stack.serving_api(port) as api,
        stack.polling() as ended,
    ):
        _fill(stack)
        print(_greeting(stack, api), flush=True)
        # Now and then it looks up: a signal that reaches another thread first wakes nobody who waits for ever.
        while not ended.wait(timeout=1):
            pass


def _fill(stack: Stack) -> None:
    s3, sample = stack.client("s3"), ROOT / SAMPLE
    s3.create_bucket(Bucket=PHOTOS)
    s3.put_object(Bucket=PHOTOS, Key=sample.name, Body=sample.read_bytes())


def _greeting(stack: Stack, api: str) -> str:
    bucket, endpoint = stack.storage.bucket, stack.endpoint
    credentials = " ".join(f"{name}={value}" for name, value in CREDENTIALS.items())
    litelens = Path(sys.executable).parent / "litelens"
    if litelens.is_relative_to(ROOT):
        litelens = litelens.relative_to(ROOT)
    return f"""\
litelens is listening on {api}, with an AWS of its own on {endpoint} (Ctrl-C ends both).
Set this in another terminal:

  export AWS_ENDPOINT_URL={endpoint} {credentials}
  export LITELENS_UPLOAD_BUCKET={bucket} LITELENS_RESULTS_TABLE={stack.storage.results_table}

Then upload photos, with or without the AWS CLI, and list the results:

  aws s3 cp {SAMPLE} s3://{bucket}/uploads/ --endpoint-url {endpoint}
  {litelens} upload {SAMPLE} --wait
  {litelens} results

Requests may name s3://{PHOTOS}/{Path(SAMPLE).name}, and what else you put into that bucket.
The logs are in {stack.logs} until it ends.
"""


def _forget_the_users_aws() -> None:
    """moto runs in this process, and reads the user's configuration too."""
    environment = isolated_environment()
    os.environ.clear()
    os.environ.update(environment)


def _show_progress() -> None:
    progress = logging.getLogger("local")
    progress.addHandler(logging.StreamHandler(sys.stdout))
    progress.setLevel(logging.INFO)


if __name__ == "__main__":
    main()
