"""Words given with `-o`, as mount(8) writes them, to what they mean for a satfs mount.

Decides only; `cli/commands/mount.py` acts on it. Options that mount(8), fstab and systemd pass
along for themselves are accepted and dropped. Options that satfs cannot fulfil are refused by name,
and so are unknown ones: users find a misspelt option that is silently dropped months later.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct, field

from satfs.errors import BadSettings

#: For mount(8), fstab and systemd, or without a meaning where nothing is written (mount(8),
#: "FILESYSTEM-INDEPENDENT MOUNT OPTIONS"; systemd.mount(5)).
# fmt: off
FOR_OTHERS: Final = frozenset({
    "_netdev", "async", "atime", "auto", "defaults", "dev", "diratime", "dirsync", "group",
    "iversion", "lazytime", "loud", "mand", "noauto", "nofail", "nogroup", "noiversion",
    "nolazytime", "nomand", "norelatime", "noowner", "nostrictatime", "nouser", "nousers", "owner",
    "relatime", "silent", "strictatime", "suid", "sync", "user", "users",
})
# fmt: on
#: Namespaces of userspace tools (mount(8): "x-" and "X-"), and free text.
FOR_OTHERS_PREFIXES: Final = ("x-", "X-", "comment=")

#: Handed to the kernel as they are.
KERNEL_FLAGS: Final = ("nosuid", "nodev", "exec", "noexec", "noatime", "nodiratime")
#: Of these the one that is given last counts.
_OPPOSITES: Final = {"exec": "noexec", "noexec": "exec"}

REFUSED: Final = {
    "rw": "satfs is read-only; omit this option",
    "remount": "a satfs mount cannot be changed; unmount it, and mount it again",
    "bind": "mount the source first, then bind it with mount(8)",
    "subtype": "the type of a satfs mount is always fuse.satfs",
    "max_read": "smaller reads are only slower, and the kernel does not send larger ones",
}


class GivenOptions(Struct, frozen=True):
    """The `-o` options of one command line; None where they set nothing."""

    allow_other: bool = False
    allow_root: bool = False
    default_permissions: bool = False
    auto_unmount: bool = False
    nonempty: bool = False
    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    fsname: str | None = None
    kernel_flags: tuple[str, ...] = ()
    #: Settings by field name, as text; `load_settings` judges the values.
    settings: dict[str, str] = field(default_factory=dict)


_SWITCHES: Final = ("allow_other", "allow_root", "default_permissions", "auto_unmount", "nonempty")
_NUMBERS: Final = {"uid": 10, "gid": 10, "umask": 8}
#: Linux ids are 32 bits wide, and the last one means "none" (chown(2)); a mode has nine bits.
_LARGEST: Final = {"uid": 2**32 - 2, "gid": 2**32 - 2, "umask": 0o777}


def parse_options(texts: Iterable[str], *, is_sloppy: bool = False) -> GivenOptions:
    r"""Parse *texts*, each a list of options separated by commas.

    The last of contradicting options wins, as in mount(8). A comma inside a value is written `\,`
    and a backslash `\\`, as in libfuse. With *is_sloppy* unknown options are dropped (`mount -s`).

    Raises:
        BadSettings: an option is not known, not possible, or its value cannot be. The message
            names the option, and never quotes a value.
    """
    found: dict[str, bool | int | str] = {}
    flags: dict[str, None] = {}
    settings: dict[str, str] = {}
    for option in (option for text in texts for option in split_escaped(text) if option):
        name, given, value = option.partition("=")
        if name in FOR_OTHERS or name == "ro" or option.startswith(FOR_OTHERS_PREFIXES):
            continue
        if name in REFUSED:
            raise BadSettings(f"-o {name}: {REFUSED[name]}")
        if name in KERNEL_FLAGS:
            flags.pop(_OPPOSITES.get(name, ""), None)
            flags[name] = None
        elif name in _SWITCHES:
            if given:
                raise BadSettings(f"-o {name} takes no value")
            found[name] = True
        elif name in _NUMBERS:
            found[name] = _number(name, value)
        elif name == "fsname":
            if not value:
                raise BadSettings("-o fsname needs a value: -o fsname=NAME")
            found[name] = value
        elif _is_setting(name):
            settings[name] = _setting(name, value)
        elif not is_sloppy:
            raise BadSettings(_unknown(name))
    if found.get("allow_other") and found.get("allow_root"):
        raise BadSettings("-o allow_other and -o allow_root exclude each other; give one of them")
    return GivenOptions(**found, kernel_flags=tuple(flags), settings=settings)  # type: ignore[arg-type]


def split_escaped(text: str) -> list[str]:
    r"""Return the parts of *text* between its commas, with `\,` and `\\` unescaped."""
    parts, part, characters = [], "", iter(text)
    for character in characters:
        if character == "\\":
            part += next(characters, "\\")
        elif character == ",":
            parts.append(part)
            part = ""
        else:
            part += character
    return [*parts, part]


def join_escaped(parts: Iterable[str]) -> str:
    """Return the text that `split_escaped` would split into *parts* (one at least)."""
    return ",".join(part.replace("\\", r"\\").replace(",", r"\,") for part in parts)


def _number(name: str, value: str) -> int:
    base = _NUMBERS[name]
    digits = "01234567" if base == 8 else "0123456789"
    is_number = value != "" and set(value) <= set(digits) and len(value) <= 10
    if not is_number or int(value, base) > _LARGEST[name]:
        example = "022" if name == "umask" else "1000"
        kind = "an octal number" if base == 8 else "a number"
        raise BadSettings(f"-o {name} needs {kind}: -o {name}={example}")
    return int(value, base)


def _is_setting(name: str) -> bool:
    # Their module takes as long to import as the rest of the command line.
    from satfs.settings import Settings

    return name in Settings.__struct_fields__


def _setting(name: str, value: str) -> str:
    from satfs.settings import is_secret

    if is_secret(name):
        raise BadSettings(secret_refusal(f"-o {name}", name))
    if not value:
        raise BadSettings(f"-o {name} needs a value: -o {name}=VALUE")
    return value


def secret_refusal(stated: str, setting: str) -> str:
    """Return the sentence that refuses a secret given as *stated* on a command line."""
    from satfs.settings import variable_of

    return (
        f"{stated}: a secret on a command line is shown to everybody by ps; "
        f"set the environment variable {variable_of(setting)} instead"
    )


def _unknown(name: str) -> str:
    # Only what looks like a name is repeated: text with anything else in it may be a secret.
    if name.replace("_", "").replace("-", "").isalnum() and len(name) <= 40:
        return f"-o {name}: not an option that satfs knows; `satfs mount --help` lists them"
    return "-o: not an option that satfs knows; `satfs mount --help` lists them"
