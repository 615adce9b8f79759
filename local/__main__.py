"""Run the local stack until Ctrl-C: `make local`."""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

from litelens.settings import DEFAULT_MODEL
from litelens_client.__main__ import positive_integer
from litelens_client.serve import listen
from local.aws import CREDENTIALS, isolated_environment
from local.emulator import EmulatorError
from local.stack import LocalError, Stack, run_stack
from local.storage import ROOT

SAMPLE = "web/samples/cat.jpg"

# A bucket that requests may read, with a sample photo in it.
PHOTOS = "photos"


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the API and classify uploads on this machine, without Docker.")
    parser.add_argument("--port", type=int, default=8080, help="port of the API (default: 8080)")
    parser.add_argument(
        "--workers",
        type=positive_integer,
        default=1,
        help="number of batches to classify at the same time (default: 1)",
    )
    given = parser.parse_args()
    bundle = Path(os.environ.get("LITELENS_BUNDLE") or ROOT / "models" / DEFAULT_MODEL)
    _isolate_environment()
    _print_progress()
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.default_int_handler)
    try:
        listen(given.port).close()
        _run(bundle, given.port, given.workers)
    except (EmulatorError, LocalError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print()


def _run(bundle: Path, port: int, workers: int) -> None:
    with (
        run_stack(bundle, workers=workers, parameters={"ImageBuckets": PHOTOS}) as stack,
        stack.serve_api(port) as api,
        stack.poll_queue() as ended,
    ):
        _upload_sample(stack)
        print(_instructions(stack, api), flush=True)
        # A wait without a timeout would not notice a signal that another thread receives first.
        while not ended.wait(timeout=1):
            pass


def _upload_sample(stack: Stack) -> None:
    s3, sample = stack.client("s3"), ROOT / SAMPLE
    s3.create_bucket(Bucket=PHOTOS)
    s3.put_object(Bucket=PHOTOS, Key=sample.name, Body=sample.read_bytes())


def _instructions(stack: Stack, api: str) -> str:
    bucket, endpoint = stack.storage.bucket, stack.endpoint
    credentials = " ".join(f"{name}={value}" for name, value in CREDENTIALS.items())
    litelens = Path(sys.executable).parent / "litelens"
    if litelens.is_relative_to(ROOT):
        litelens = litelens.relative_to(ROOT)
    return f"""\
litelens is listening on {api}, with a local AWS on {endpoint} (Ctrl-C stops both).
Set this in another terminal:

  export AWS_ENDPOINT_URL={endpoint} {credentials}
  export LITELENS_UPLOAD_BUCKET={bucket} LITELENS_RESULTS_TABLE={stack.storage.results_table}

Then upload photos, with or without the AWS CLI, and list the results:

  aws s3 cp {SAMPLE} s3://{bucket}/uploads/ --endpoint-url {endpoint}
  {litelens} upload {SAMPLE} --wait
  {litelens} results

Requests may read s3://{PHOTOS}/{Path(SAMPLE).name}, and any other object that you put into that bucket.
The logs are in {stack.logs} until you press Ctrl-C.
"""


def _isolate_environment() -> None:
    """Remove the user's AWS settings from this process, because moto runs in it and reads them too."""
    environment = isolated_environment()
    os.environ.clear()
    os.environ.update(environment)


def _print_progress() -> None:
    progress = logging.getLogger("local")
    progress.addHandler(logging.StreamHandler(sys.stdout))
    progress.setLevel(logging.INFO)


if __name__ == "__main__":
    main()
