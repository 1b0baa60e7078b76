"""Number the nodes the kernel knows, count its references.

An inode number is derived from a node's identity by a keyed hash: the same identity has the same
number in every mount of the account, on every machine, so that NFS clients, `rsync` and backups
recognise files that they have seen. Numbers lie in [2^32, 2^63): out of the way of the root's (1),
and positive however a program reads them.

The kernel counts references ("lookup count"): each reply that names an inode adds one, and the
kernel gives them back in `forget`, sometimes many at once. Between the first and the last reference
the number means that identity and nothing else. (libfuse, `fuse_lowlevel_ops.forget`.)

Should two identities ever hash to one number (one chance in twenty that any two do, among a billion
known at once), the one that comes second is hashed again with a salt, for as long as it is known.

A program that lists 100,000 scenes leaves the kernel with a reference to each. So little is held
for each: its node and a count, by number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final, Generic, NewType, Protocol, TypeVar

from satfs.errors import Misuse

Inode = NewType("Inode", int)

#: The root's number, fixed by the kernel (FUSE_ROOT_ID).
ROOT: Final = Inode(1)

_SMALLEST: Final = 2**32
_LIMIT: Final = 2**63


class Identified(Protocol):
    """A node that can be numbered."""

    @property
    def identity(self) -> tuple[str, ...]:
        """Its identity, the same for every caller and at any time."""
        ...


N = TypeVar("N", bound=Identified)
Numbering = Callable[[Sequence[str], int], int]


def keyed_numbering(key: bytes) -> Numbering:
    """Return a function from (identity, salt) to an inode number, keyed by *key*.

    The key keeps the numbers of two accounts apart, and a vendor from choosing ids that collide.
    """
    digest_key = blake2b(key, digest_size=32).digest()

    def number(identity: Sequence[str], salt: int) -> int:
        # Lengths first, so that ("a", "b") is never ("ab",).
        text = "".join(f"{len(part)}:{part}" for part in identity)
        digest = blake2b(
            text.encode("utf-8", "surrogatepass"),
            digest_size=8,
            key=digest_key,
            salt=salt.to_bytes(8, "little"),
        ).digest()
        return _SMALLEST + int.from_bytes(digest, "little") % (_LIMIT - _SMALLEST)

    return number


class Inodes(Generic[N]):
    """The nodes that the kernel has a reference to, by number.

    Invariants:
        Each known identity has exactly one number, and each number one identity.
        Each known node, the root aside, has a lookup count above zero. The root is always known.
    """

    def __init__(self, root: N, numbering: Numbering) -> None:
        self._numbering = numbering
        self._top = root.identity
        self._nodes: dict[Inode, N] = {ROOT: root}
        #: Lookup counts above one, which few nodes have.
        self._counts: dict[Inode, int] = {ROOT: 0}
        #: Numbers of the identities that found their own one taken when they became known.
        self._salted: dict[tuple[str, ...], Inode] = {}

    def __len__(self) -> int:
        """Return how many nodes are known, the root included."""
        return len(self._nodes)

    def known(self) -> list[tuple[Inode, N]]:
        """Return every node that is known, with its number, the root first."""
        return list(self._nodes.items())

    def number(self, node: N) -> Inode:
        """Return the number that *node* has, or would have if it became known now."""
        return self._number(node.identity)[0]

    def remember(self, node: N) -> Inode:
        """Count one more reference to *node* and return its number.

        From now on the number leads to this object: of two nodes with one identity the later one
        has the present times and attributes.
        """
        identity = node.identity
        inode, is_salted = self._number(identity)
        if inode in self._nodes:
            self._counts[inode] = self._counts.get(inode, 1) + 1
        elif is_salted:
            self._salted[identity] = inode
        self._nodes[inode] = node
        return inode

    def node(self, inode: int) -> N:
        """Return the node that *inode* leads to.

        Raises:
            Misuse: the kernel has no reference to such an inode.
        """
        node = self._nodes.get(Inode(inode))
        if node is None:
            raise Misuse(f"inode {inode} is not known")
        return node

    def knows(self, inode: int) -> bool:
        """Return whether *inode* leads to a node."""
        return inode in self._nodes

    def n_lookups(self, inode: int) -> int:
        """Return how many references the kernel has to *inode*; 0 when it is not known."""
        return self._counts.get(Inode(inode), 1) if inode in self._nodes else 0

    def forget(self, inode: int, n_lookups: int) -> None:
        """Take *n_lookups* references from *inode*; the last one makes it unknown.

        Raises:
            Misuse: there are fewer. Then all of them have been taken.
        """
        known = Inode(inode)
        if known not in self._nodes:
            raise Misuse(f"inode {inode} was forgotten, and is not known")
        if n_lookups < 0:
            raise Misuse(f"inode {inode} was forgotten {n_lookups} times")
        n_left = self.n_lookups(inode) - n_lookups
        if inode == ROOT:
            # The kernel counts no references to the root, but sends some back at unmount.
            self._counts[ROOT] = max(0, n_left)
            return
        if n_left > 1:
            self._counts[known] = n_left
        else:
            self._counts.pop(known, None)
        if n_left <= 0:
            node = self._nodes.pop(known)
            if self._salted:
                self._salted.pop(node.identity, None)
        if n_left < 0:
            raise Misuse(f"inode {inode} was forgotten {-n_left} times too often")

    def _number(self, identity: tuple[str, ...]) -> tuple[Inode, bool]:
        """Return the number of an identity, and whether it is another one than its own hash."""
        salted = self._salted.get(identity) if self._salted else None
        if salted is not None:
            return salted, True
        if identity == self._top:
            return ROOT, False
        salt = 0
        while True:
            inode = Inode(self._numbering(identity, salt))
            holder = self._nodes.get(inode)
            if holder is None or holder.identity == identity:
                return inode, salt > 0
            salt += 1
