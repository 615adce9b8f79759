"""Many images: one after the other or several at once, with the results in the order of the images."""

from collections.abc import Callable, Iterator, Sequence

from client.inputs import ImageObject, Source, unreadable
from client.results import Answer, ClassifyError, Failed, Labelled, Result

Classify = Callable[[bytes | str], Answer]


def classify_all(sources: Sequence[Source | Failed], classify: Classify, parallel: int = 1) -> Iterator[Result]:
    """A result for each source, as soon as it and those before it are there.

    `classify` takes an image's bytes or S3 URI, and raises ClassifyError. With `parallel` above 1 it is called by as
    many threads, which do not keep the process from ending.
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
        image = source.name if isinstance(source, ImageObject) else source.read()
    except OSError as error:
        return unreadable(source.name, error)
    try:
        return Labelled(source.name, classify(image))
    except ClassifyError as error:
        return Failed(source.name, error.code, error.detail, error.request_id)
