"""What AWS refused or failed to do. Messages are sentences for whoever sent the request, without AWS's own text.

AdapterError
├── StorageError                S3, the results, the bus for events or CodeDeploy cannot be used as they should
│   ├── BucketNotAllowed        the bucket is none of those that may be read
│   ├── ObjectNotFound          there is no such object
│   ├── ObjectVersionNotFound   there is such an object, but not in this version
│   ├── ObjectAccessDenied      the bucket's owner lets nobody here read the object
│   ├── StorageTimeout          AWS took longer than the request may
│   └── StorageUnavailable      AWS failed, however often it was asked
├── DescribeError               the language model gave no answer
│   ├── DescribeRefused         it will not talk about this
│   ├── DescribeThrottled       it is asked too often
│   ├── DescribeTimeout         it took longer than the request may
│   └── DescribeUnavailable     it is not there, or not for us
└── VersionError                a function's version gave no answer
    ├── VersionFailed           it was invoked, and ended with an error
    └── VersionUnavailable      it could not be invoked, or did not end in time
"""


class AdapterError(Exception):
    """Base of all errors of this package."""


class StorageError(AdapterError):
    """S3, the results, the bus for events or CodeDeploy cannot be used as they should."""


class BucketNotAllowed(StorageError):
    """The bucket is none of those that may be read."""


class ObjectNotFound(StorageError):
    """There is no such object."""


class ObjectVersionNotFound(StorageError):
    """There is such an object, but not in this version."""


class ObjectAccessDenied(StorageError):
    """The bucket's owner lets nobody here read the object."""


class StorageTimeout(StorageError):
    """AWS took longer than the request may."""


class StorageUnavailable(StorageError):
    """AWS failed, however often it was asked."""


class DescribeError(AdapterError):
    """The language model gave no answer."""


class DescribeRefused(DescribeError):
    """It will not talk about this."""


class DescribeThrottled(DescribeError):
    """It is asked too often."""


class DescribeTimeout(DescribeError):
    """It took longer than the request may."""


class DescribeUnavailable(DescribeError):
    """It is not there, or not for us."""


class VersionError(AdapterError):
    """A function's version gave no answer."""


class VersionFailed(VersionError):
    """It was invoked, and ended with an error."""


class VersionUnavailable(VersionError):
    """It could not be invoked, or did not end in time."""
