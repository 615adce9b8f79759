"""Many images: one after the other or several at once, with the results in the order of the images."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from client.inputs import Source, unreadable
from client.results import Answer, ClassifyError, Failed, Labelled, Result

Classify = Callable[[bytes | Path | str], Answer]


def classify_all(sources: Sequence[Source | Failed], classify: Classify, parallel: int = 1) -> Iterator[Result]:
    """A result for each source, as soon as it and those before it are there.

    `classify` takes an image's bytes, file or S3 URI, and raises ClassifyError, which is raised again where it concerns
    all images, and OSError. With `parallel` above 1 it is called by as many threads, which do not keep the process from
    ending.
    """
    if parallel == 1:
        yield from (_result(source, classify) for source in sources)
        return
    from multiprocessing.pool import ThreadPool

    with ThreadPool(parallel) as pool:
        yield from pool.imap(lambda source: _result(source, classify), sources)


def _result(source: Source | Failed, classify: Classify) -> Result:
    if isinstance(source, Failed):
        return source
    try:
        return Labelled(source.name, classify(source.image))
    except OSError as error:
        return unreadable(source.name, error)
    except ClassifyError as error:
        if error.concerns_all:
            raise
        return Failed(source.name, error.code, error.detail, error.request_id)
