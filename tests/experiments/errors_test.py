import errno

import pytest

from experiments import errors


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_names_the_path_and_keeps_the_number(tmp_path, number):
    with (
        pytest.raises(errors.NoRoomError, match="no room to write .*x.bin") as caught,
        errors.writing(tmp_path / "x.bin"),
    ):
        raise OSError(number, "full")
    assert caught.value.errno == number


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR])
def test_an_unusable_place_is_bad_input(number):
    with pytest.raises(errors.InputError, match="cannot write /x/y: .*--workdir"), errors.writing("/x/y"):
        raise OSError(number, "refused")


def test_other_failures_pass_unchanged():
    with pytest.raises(OSError) as caught, errors.writing("/x"):
        raise OSError(errno.EIO, "broken disk")
    assert type(caught.value) is OSError and caught.value.errno == errno.EIO
    with pytest.raises(errors.NoRoomError, match="^mine$"), errors.writing("/x"):
        raise errors.NoRoomError("mine")


def test_a_really_full_device_is_recognised():
    with pytest.raises(errors.NoRoomError), errors.writing("/dev/full"), open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")
