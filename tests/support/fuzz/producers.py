# SPDX-License-Identifier: Apache-2.0
"""DLPack capsules made by hand, field by field, with deleters that count."""

import ctypes as c

import ml_dtypes
import numpy as np

from cintervene import _core


class Tensor(c.Structure):
    _fields_ = [
        ("data", c.c_void_p),
        ("device_type", c.c_int32),
        ("device_id", c.c_int32),
        ("ndim", c.c_int32),
        ("code", c.c_uint8),
        ("bits", c.c_uint8),
        ("lanes", c.c_uint16),
        ("shape", c.POINTER(c.c_int64)),
        ("strides", c.POINTER(c.c_int64)),
        ("byte_offset", c.c_uint64),
    ]


class Legacy(c.Structure):
    _fields_ = [("tensor", Tensor), ("manager", c.c_void_p), ("deleter", c.c_void_p)]


class Versioned(c.Structure):
    _fields_ = [
        ("major", c.c_uint32),
        ("minor", c.c_uint32),
        ("manager", c.c_void_p),
        ("deleter", c.c_void_p),
        ("flags", c.c_uint64),
        ("tensor", Tensor),
    ]


_LIBRARY = c.PyDLL(_core.__file__)
_DELETERS = _LIBRARY.faults_delete_legacy, _LIBRARY.faults_delete_versioned
_NEW = c.pythonapi.PyCapsule_New
_NEW.restype = c.py_object
_NEW.argtypes = [c.c_void_p, c.c_char_p, c.c_void_p]

LEGACY, VERSIONED = b"dltensor", b"dltensor_versioned"


class Producer:
    """What a NumPy array exports, with fields changed by `change(managed)`.

    `made` and `deleted` count capsules and calls of their deleters. The capsules have
    no destructor, so that only who takes one calls its deleter.
    """

    def __init__(self, x, *, versioned=True, change=None, name="usual", device=(1, 0)):
        self.x, self.shape, self.versioned = x, x.shape, versioned
        self.change, self.device = change, device
        usual = VERSIONED if versioned else LEGACY
        self.name = usual if name == "usual" else name
        self.made, self._deleted = 0, c.c_int64(0)
        self._deleter = c.cast(_DELETERS[versioned], c.c_void_p)
        self._held = []
        self._tensor = self._describe()

    @property
    def deleted(self):
        return self._deleted.value

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **options):
        if options and not self.versioned:
            raise TypeError("unexpected keyword")
        managed = Versioned(1, 0) if self.versioned else Legacy()
        managed.deleter = self._deleter
        managed.manager = c.addressof(self._deleted)
        managed.tensor = self._tensor
        if self.change is not None:
            self.change(managed)
        self._held.append(managed)
        capsule = _NEW(c.addressof(managed), self.name, None)
        self.made += managed.deleter is not None
        return capsule

    def _describe(self):
        x, n = self.x, self.x.ndim
        bfloat = x.dtype == ml_dtypes.bfloat16
        shape = (c.c_int64 * n)(*x.shape)
        strides = (c.c_int64 * n)(*(s // x.itemsize for s in x.strides))
        self._held += [shape, strides]
        return Tensor(
            x.__array_interface__["data"][0],
            1,
            0,
            n,
            4 if bfloat else 2,
            8 * x.itemsize,
            1,
            c.cast(shape, c.POINTER(c.c_int64)),
            c.cast(strides, c.POINTER(c.c_int64)),
            0,
        )


def array_of(x):
    """The numbers of an array or of what a Producer exports."""
    return np.asarray(x.x if isinstance(x, Producer) else x)
