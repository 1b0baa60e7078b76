"""`-o`, read as mount(8) writes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.cli.mount_options import (
    FOR_OTHERS,
    KERNEL_FLAGS,
    REFUSED,
    GivenOptions,
    join_escaped,
    parse_options,
    split_escaped,
)
from satfs.errors import BadSettings
from satfs.settings import Settings, is_secret

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
markers = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=9, max_size=40).map(
    lambda text: "Sq7" + text
)


@given(st.lists(words, min_size=1))
def test_commas_and_backslashes_survive_being_escaped(parts: list[str]) -> None:
    assert split_escaped(join_escaped(parts)) == parts


@given(words)
def test_any_text_can_be_split(text: str) -> None:
    assert len(split_escaped(text)) <= text.count(",") + 1


@given(st.lists(words), st.lists(words))
def test_any_options_are_understood_or_refused(one: list[str], other: list[str]) -> None:
    """Nothing but `BadSettings` ever comes out of a command line."""
    try:
        parse_options([",".join(one), ",".join(other)])
    except BadSettings as refused:
        told = str(refused)
    else:
        told = "-o was understood"

    assert told.startswith("-o")


@given(
    st.lists(
        st.one_of(
            st.sampled_from(sorted(FOR_OTHERS)),
            st.sampled_from(["ro", "x-systemd.automount", "x-gvfs-name=Aleph", "X-mount.mkdir"]),
            st.just("comment=a note"),
            st.just("user=somebody"),
        )
    )
)
def test_what_is_meant_for_others_changes_nothing(given_words: list[str]) -> None:
    assert parse_options([",".join(given_words)]) == GivenOptions()


def test_an_fstab_line_is_understood() -> None:
    line = (
        "ro,_netdev,nofail,nosuid,nodev,noauto,x-systemd.automount,"
        "x-systemd.idle-timeout=600,uid=1000,gid=100,umask=022,allow_other,fsname=satfs:prod"
    )

    assert parse_options([line]) == GivenOptions(
        allow_other=True,
        uid=1000,
        gid=100,
        umask=0o022,
        fsname="satfs:prod",
        kernel_flags=("nosuid", "nodev"),
    )


@pytest.mark.parametrize(
    "name", ["allow_other", "allow_root", "default_permissions", "auto_unmount", "nonempty"]
)
def test_switches_are_on_when_named_and_take_no_value(name: str) -> None:
    assert getattr(parse_options([name]), name) is True
    assert getattr(parse_options([]), name) is False
    with pytest.raises(BadSettings, match=f"-o {name} takes no value"):
        parse_options([f"{name}=yes"])


@pytest.mark.parametrize("name", KERNEL_FLAGS)
def test_kernel_flags_are_handed_on_once(name: str) -> None:
    assert parse_options([f"{name},{name}", name]).kernel_flags == (name,)


@pytest.mark.parametrize("name", REFUSED)
def test_the_impossible_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(BadSettings) as refused:
        parse_options([f"ro,{name}"])

    assert str(refused.value) == f"-o {name}: {REFUSED[name]}"


@given(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2), st.integers(0, 0o777))
def test_ids_are_decimal_and_masks_are_octal(uid: int, gid: int, umask: int) -> None:
    found = parse_options([f"uid={uid},gid={gid},umask={umask:o}"])

    assert (found.uid, found.gid, found.umask) == (uid, gid, umask)


@pytest.mark.parametrize(
    "option",
    [
        "uid",
        "uid=",
        "uid=me",
        "uid=-1",
        "uid=1.5",
        "uid=0x10",
        "uid=4294967295",  # means "no user" to the kernel
        "uid=99999999999",
        "uid= 1",
        "uid=١",  # a digit to Unicode, no number to mount(8)  # noqa: RUF001
        "gid=users",
        "umask=8",
        "umask=1000",
        "umask=0o22",
    ],
)
def test_a_number_that_is_none_is_refused_with_an_example(option: str) -> None:
    name = option.partition("=")[0]

    with pytest.raises(BadSettings, match=rf"-o {name} needs .* -o {name}=(022|1000)$"):
        parse_options([option])


def test_the_last_word_wins() -> None:
    assert parse_options(["uid=1,uid=2", "uid=3"]).uid == 3


def test_a_mount_is_for_all_others_or_for_root() -> None:
    with pytest.raises(BadSettings, match="exclude each other"):
        parse_options(["allow_other", "allow_root"])


@pytest.mark.parametrize("name", sorted(n for n in Settings.__struct_fields__ if not is_secret(n)))
def test_every_setting_but_a_secret_is_an_option(name: str) -> None:
    """So that an fstab line can say all that the environment can."""
    assert parse_options([f"{name}=a\\,b"]).settings == {name: "a,b"}
    with pytest.raises(BadSettings, match=f"-o {name} needs a value"):
        parse_options([name])


@given(st.sampled_from(sorted(n for n in Settings.__struct_fields__ if is_secret(n))), markers)
def test_secrets_are_refused_and_not_repeated(name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=f"SATFS_{name.upper()}") as refused:
        parse_options([f"{name}={value}"])

    assert value not in str(refused.value)


@given(markers, st.sampled_from("=:/ .@"))
def test_values_of_unknown_options_are_not_repeated(value: str, between: str) -> None:
    """The text behind a misspelt name may be anything, a secret included."""
    with pytest.raises(BadSettings) as refused:
        parse_options([f"clientsecret{between}{value}"])

    assert value not in str(refused.value)


def test_the_unknown_is_refused_by_name() -> None:
    with pytest.raises(BadSettings, match="-o alow_other: not an option that satfs knows"):
        parse_options(["ro,alow_other"])
