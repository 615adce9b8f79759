"""What AWS refused or failed to do. Messages are sentences for whoever sent the request, without AWS's own text.

AdapterError
├── ObjectError                 an object in S3 cannot be read or written
│   ├── BucketNotAllowed        the bucket is none of those that may be read
│   ├── ObjectNotFound          there is no such object
│   ├── ObjectVersionNotFound   there is such an object, but not in this version
│   ├── ObjectAccessDenied      the bucket's owner lets nobody here read the object
│   ├── StorageTimeout          S3 took longer than the request may
│   └── StorageUnavailable      S3 failed, however often it was asked
└── DescribeError               the language model gave no answer
    ├── DescribeRefused         it will not talk about this
    ├── DescribeThrottled       it is asked too often
    ├── DescribeTimeout         it took longer than the request may
    └── DescribeUnavailable     it is not there, or not for us
"""


class AdapterError(Exception):
    """Base of all errors of this package."""


class ObjectError(AdapterError):
    """An object in S3 cannot be read or written."""


class BucketNotAllowed(ObjectError):
    """The bucket is none of those that may be read."""


class ObjectNotFound(ObjectError):
    """There is no such object."""


class ObjectVersionNotFound(ObjectError):
    """There is such an object, but not in this version."""


class ObjectAccessDenied(ObjectError):
    """The bucket's owner lets nobody here read the object."""


class StorageTimeout(ObjectError):
    """S3 took longer than the request may."""


class StorageUnavailable(ObjectError):
    """S3 failed, however often it was asked."""


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
