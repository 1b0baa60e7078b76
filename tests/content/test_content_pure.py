"""Modules that only decide: block map, alignment, read-ahead, connections, messages, requests."""

from __future__ import annotations

import random
import struct
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from satfs.content.cache.blockmap import (
    BLOCK_BYTES,
    BLOCKS_PER_SEGMENT,
    BlockMap,
    Segment,
    align,
)
from satfs.content.cache.index import Protected, Victim, choose_victims, merge
from satfs.content.fetch import range_request as range_requests
from satfs.content.fetch.connection_controller import (
    INITIAL_CONNECTIONS,
    MAX_LATER,
    MIN_CONNECTIONS,
    ConnectionController,
)
from satfs.content.fetch.links import MARGIN_S, usable_for_s
from satfs.content.fetch.range_request import (
    SHORTEST_LAST_BYTES,
    fitted_stop,
    range_length,
    split,
)
from satfs.content.fetch.readahead import (
    OPENING_WINDOW_BYTES,
    PAGEWISE_BYTES,
    PAGEWISE_WINDOW_BYTES,
    PLACE_BYTES,
    Pattern,
    ReadAhead,
    window_for,
)
from satfs.content.transfer import messages
from satfs.content.transfer.messages import MoveOrder, OutcomeReport, ProgressReport
from satfs.content.transfer.store_responses import ResponseClass, ResponseKind
from satfs.model import MIB, ByteRange, Link

KIB = 1024


def ranges(limit: int) -> st.SearchStrategy[ByteRange]:
    return st.tuples(st.integers(0, limit), st.integers(0, limit)).map(
        lambda pair: ByteRange(min(pair), max(pair))
    )


class TestAlign:
    @given(ranges(10 * BLOCK_BYTES), st.integers(0, 10 * BLOCK_BYTES))
    def test_covers_and_is_whole(self, span: ByteRange, size: int) -> None:
        whole, part = align(span, size), span.clip(size)
        if part:
            assert whole.start <= part.start
            assert whole.stop >= part.stop
        assert whole.stop <= size
        assert len(whole) <= len(part) + 2 * BLOCK_BYTES
        if whole:
            assert whole.start % BLOCK_BYTES == 0
            assert whole.stop % BLOCK_BYTES == 0 or whole.stop == size


class TestBlockMap:
    @given(st.data(), st.integers(0, 150 * BLOCK_BYTES))
    def test_equals_a_set(self, data: Any, size: int) -> None:
        """Any order of marking, loading and dropping gives what sets of block numbers would."""
        blocks, n_blocks = BlockMap(size), -(-size // BLOCK_BYTES)
        held: dict[int, int] = {}
        unchecked: dict[int, int] = {}

        def numbers(span: ByteRange) -> range:
            part = span.clip(size)
            return range(part.start // BLOCK_BYTES, -(-part.stop // BLOCK_BYTES))

        for _ in range(data.draw(st.integers(0, 8))):
            span = data.draw(ranges(size + BLOCK_BYTES))
            action = data.draw(st.sampled_from(["hold", "drop", "load"]))
            touched = numbers(span)
            if action == "hold":
                blocks.hold(touched.start, [number * 7 for number in touched])
                for number in touched:
                    held[number] = number * 7
                    unchecked.pop(number, None)
            elif action == "drop":
                present = [n for n in touched if n in held or n in unchecked]
                assert blocks.drop(span) == len(present) * BLOCK_BYTES
                for number in present:
                    held.pop(number, None)
                    unchecked.pop(number, None)
            else:
                number = data.draw(st.integers(0, 3))
                mask = data.draw(st.integers(0, 2**64 - 1))
                hashes = struct.pack("<64Q", *range(number * 64, number * 64 + 64))
                if number * BLOCKS_PER_SEGMENT < max(n_blocks, 1):
                    blocks.load(Segment(number, mask, hashes))
                    for block in range(number * 64, min(number * 64 + 64, n_blocks)):
                        if mask >> block % 64 & 1 and block not in held:
                            unchecked.setdefault(block, block)
            probe = data.draw(ranges(size + BLOCK_BYTES))
            probed = numbers(probe)
            assert blocks.n_present == len(held) + len(unchecked)
            assert blocks.holds(probe) == all(n in held for n in probed)
            assert blocks.is_present(probe) == all(n in held or n in unchecked for n in probed)
            absent = [n for n in probed if n not in held and n not in unchecked]
            assert [n for gap in blocks.gaps(probe) for n in numbers(gap)] == absent
            waiting = [n for n in probed if n in unchecked]
            assert [n for run in blocks.unchecked(probe) for n in numbers(run)] == waiting
            for number in blocks.present_segments():
                segment = blocks.segment(number)
                mine = {n % 64 for n in held if n // 64 == number}
                assert segment.mask == sum(1 << n for n in mine)
                assert segment.n_blocks == len(mine)
                for bit in mine:
                    at = number * 64 + bit
                    assert struct.unpack_from("<Q", segment.hashes, 8 * bit)[0] == held[at]
            touched_segments = sorted({n // 64 for n in probed})
            assert list(blocks.segments_of(probe)) == touched_segments


segments = st.builds(
    Segment,
    st.just(3),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=512, max_size=512),
)


class TestMerge:
    @given(segments, segments)
    def test_both_stay_and_the_new_one_counts(self, old: Segment, new: Segment) -> None:
        both = merge(old, new)
        assert both.mask == old.mask | new.mask
        for bit in range(BLOCKS_PER_SEGMENT):
            at = slice(8 * bit, 8 * bit + 8)
            if new.mask >> bit & 1:
                assert both.hashes[at] == new.hashes[at]
            elif old.mask >> bit & 1:
                assert both.hashes[at] == old.hashes[at]


class TestVictims:
    @given(
        st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9), st.integers(1, 64))),
        st.integers(0, 200),
        st.frozensets(st.integers(1, 3), max_size=1),
        st.frozensets(st.tuples(st.integers(1, 3), st.integers(0, 9))),
    )
    def test_oldest_first_enough_and_no_more(
        self, rows: Any, needed: int, objects: Any, kept: Any
    ) -> None:
        candidates = [Victim(o, str(o), 10**9, number, n) for o, number, n in rows]
        chosen = choose_victims(iter(candidates), needed, Protected(objects, kept))
        free = [v for v in candidates if v.object_id not in objects]
        free = [v for v in free if (v.object_id, v.number) not in kept]
        assert chosen == free[: len(chosen)]
        assert sum(v.n_bytes for v in chosen) >= min(needed, sum(v.n_bytes for v in free))
        assert sum(v.n_bytes for v in chosen[:-1]) < max(needed, 1)


class TestSplit:
    @given(
        ranges(100 * MIB),
        st.integers(64 * KIB, 16 * MIB),
        st.one_of(st.none(), st.integers(1, 64)),
    )
    def test_covers_once_in_order(self, gap: ByteRange, length: int, n: int | None) -> None:
        """Whole blocks in each: a block that two ranges share would be declared whole too early."""
        gap = align(gap, 100 * MIB)
        pieces = split(gap, length, n)
        assert all(piece.start % BLOCK_BYTES == 0 for piece in pieces)
        assert sum(map(len, pieces)) == len(gap)
        assert all(a.stop == b.start for a, b in pairwise(pieces))
        assert all(0 < len(piece) <= length * 5 // 4 for piece in pieces)
        if pieces:
            assert (pieces[0].start, pieces[-1].stop) == (gap.start, gap.stop)

    @given(ranges(1000 * MIB), st.integers(MIB, 16 * MIB), st.integers(1, 64))
    def test_the_last_ranges_of_a_file_are_short(self, gap: ByteRange, length: int, n: int) -> None:
        """None is longer than a connection's share of what is left, or than the shortest one."""
        gap = align(gap, 1000 * MIB)
        for piece in split(gap, length, n):
            share = max(SHORTEST_LAST_BYTES, (gap.stop - piece.start) // n)
            assert len(piece) <= min(length, share) * 5 // 4


class TestRangeLength:
    @given(st.integers(0, 2048 * MIB), st.integers(MIB, 16 * MIB), st.integers(1, 64))
    def test_a_last_window_is_shared_evenly(self, window: int, longest: int, n: int) -> None:
        """No connection has a range more than another one, unless they are as short as allowed."""
        length = range_length(window, longest, n, goes_on=False)
        assert MIB <= length <= longest
        if length > MIB:
            n_turns = -(-window // (longest * n))
            assert (length + 1) * n * n_turns > window

    @given(st.integers(0, 2048 * MIB), st.integers(MIB, 16 * MIB), st.integers(1, 64))
    def test_ranges_of_a_window_that_goes_on_are_long(
        self, window: int, longest: int, n: int
    ) -> None:
        """Two readers share a window: their ranges are as long as those of one."""
        length = range_length(window, longest, n, goes_on=True)
        if window >= longest * n:
            assert length == longest
        else:
            assert length == range_length(window, longest, n, goes_on=False)


class TestChoose:
    @given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 3))), min_size=1, max_size=8))
    def test_urgent_then_fewest_then_first(self, queue: Any) -> None:
        busy = {0: 5, 1: 2, 2: 0, 3: 7}
        waiting = [
            SimpleNamespace(is_urgent=urgent, readers=readers, order=n)
            for n, (urgent, readers) in enumerate(queue)
        ]
        chosen = range_requests.choose(cast(Any, waiting), lambda reader: busy[cast(int, reader)])
        assert chosen.is_urgent == any(each.is_urgent for each in waiting)
        rivals = [each for each in waiting if each.is_urgent == chosen.is_urgent]

        def load(each: Any) -> int:
            return min((busy[reader] for reader in each.readers), default=99)

        assert load(chosen) == min(map(load, rivals))
        assert chosen.order == min(e.order for e in rivals if load(e) == load(chosen))


class TestLinks:
    @given(st.floats(0, 2e9), st.floats(-1e6, 1e6))
    def test_renewed_before_its_end_and_never_at_once(self, now: float, left: float) -> None:
        usable = usable_for_s(Link("https://x/", now + left), now)
        assert usable > 0 or now + left - now < 1e-6
        if now + left - now > 0:
            assert usable <= now + left - now
            assert usable >= (now + left - now) - MARGIN_S

    def test_untold(self) -> None:
        assert 0 < usable_for_s(Link("https://x/"), 0.0) < 3600


habits = st.lists(
    st.tuples(st.integers(-MIB, 64 * MIB), st.integers(1, 2 * MIB), st.booleans()), max_size=40
)


class TestReadAhead:
    @given(ranges(64 * MIB), habits, st.integers(0, 64 * MIB))
    def test_never_outside_nor_beyond_the_window(
        self, bounds: ByteRange, reads: Any, limit: int
    ) -> None:
        """For any reads, plans stay inside the bounds and the window."""
        habit, front = ReadAhead(bounds), bounds.start
        for start, n_bytes, follows in reads:
            start = front if follows else max(0, start)
            front = start + n_bytes
            plan = habit.note(ByteRange(start, front), limit)
            assert sum(map(len, plan.ahead)) <= limit
            for piece in (plan.now, *plan.ahead):
                assert bounds.start <= piece.start <= piece.stop <= bounds.stop
            assert all(plan.ahead)
            if plan.pattern is Pattern.RANDOM:
                assert plan.ahead == ()

    @given(st.integers(4096, MIB), st.integers(0, 100), st.booleans())
    def test_sequential_earns_its_window(self, step: int, seed: int, is_far: bool) -> None:
        """A sequential reader keeps its run, also when the kernel's pieces come out of order."""
        dice = random.Random(seed)
        habit = ReadAhead(ByteRange(0, 1 << 40))
        starts = list(range(0, 24 * step, step))
        for n in range(1, len(starts) - 1, 2):
            if dice.random() < 0.5 and step <= 128 * KIB:
                starts[n], starts[n + 1] = starts[n + 1], starts[n]
        for start in starts:
            plan = habit.note(ByteRange(start, start + step), 1 << 40, is_far=is_far)
            assert plan.pattern is Pattern.SEQUENTIAL
        assert plan.ahead
        earned = window_for(24 * step, is_far=is_far)
        assert len(plan.ahead[0]) == max(earned, OPENING_WINDOW_BYTES)

    def test_a_far_line_earns_its_window_sooner(self) -> None:
        """And elsewhere a program that reads a mebibyte has no more than 16 requested in vain."""
        assert window_for(MIB) == 16 * MIB
        assert window_for(512 * KIB, is_far=True) == window_for(2 * MIB) == 64 * MIB
        assert window_for(512 * KIB - 1, is_far=True) == 16 * MIB
        assert window_for(128 * KIB - 1, is_far=True) == 0

    @given(st.integers(0, 1 << 40))
    def test_a_far_line_never_earns_less(self, run_bytes: int) -> None:
        """Nor more than four times as much as another line earns."""
        near, far = window_for(run_bytes), window_for(run_bytes, is_far=True)
        assert near <= far <= 4 * near

    @given(st.integers(1, 1 << 30), st.sampled_from([4096, 8192, 16384]))
    def test_pages_one_by_one_earn_a_window(self, start: int, step: int) -> None:
        """For whom the kernel reads nothing ahead, a run elsewhere earns what it has read."""
        habit = ReadAhead(ByteRange(0, 1 << 40))
        for at in range(start, start + 64 * step, step):
            plan = habit.note(ByteRange(at, at + step), 1 << 30)
        assert list(map(len, plan.ahead)) == [min(64 * step, PAGEWISE_WINDOW_BYTES)]

    @given(st.integers(1, 1 << 30), st.integers(PAGEWISE_BYTES + 1, MIB))
    def test_a_row_of_tiles_earns_nothing(self, start: int, step: int) -> None:
        """A run elsewhere that the kernel reads ahead for stays at what was requested."""
        habit = ReadAhead(ByteRange(0, 1 << 40))
        for at in range(start, start + PLACE_BYTES - step, step):
            plan = habit.note(ByteRange(at, at + step), 1 << 30)
            assert plan.ahead == ()

    @given(st.integers(3 * MIB, 9 * MIB), st.integers(1000, 300_000))
    def test_strides_are_seen(self, stride: int, n_bytes: int) -> None:
        habit = ReadAhead(ByteRange(0, 1 << 40))
        for n in range(1, 9):
            plan = habit.note(ByteRange(n * stride, n * stride + n_bytes), 1 << 30)
        assert plan.pattern is Pattern.STRIDED
        assert plan.ahead[0] == ByteRange(9 * stride, 9 * stride + n_bytes)

    @given(st.lists(st.integers(0, 1 << 16), min_size=6, max_size=40, unique=True))
    def test_random_asks_for_nothing_more(self, places: list[int]) -> None:
        """Reads far from each other and at no equal distances fetch only themselves."""
        places = [place * 16 * MIB + 7 * MIB for place in places]
        distances = [b - a for a, b in pairwise(places)]
        assume(all(a != b for a, b in pairwise(distances)))
        habit = ReadAhead(ByteRange(0, 1 << 50))
        for place in places:
            plan = habit.note(ByteRange(place, place + 65536), 1 << 30)
            assert (plan.pattern, plan.ahead) == (Pattern.RANDOM, ())


class TestFittedStop:
    @given(
        st.integers(0, 100),
        st.integers(1, 200),
        st.lists(st.integers(1, 200), max_size=12),
        st.integers(8, 200),
    )
    def test_about_the_length_and_no_short_rest(
        self, start: int, n_blocks: int, n_following: list[int], n_longest: int
    ) -> None:
        stops = [start + n_blocks]
        for n in n_following:
            stops.append(stops[-1] + n)
        following = [
            ByteRange(one * BLOCK_BYTES, two * BLOCK_BYTES) for one, two in pairwise(stops)
        ]
        span = ByteRange(start * BLOCK_BYTES, stops[0] * BLOCK_BYTES)
        longest = n_longest * BLOCK_BYTES
        stop = fitted_stop(span, following, longest)
        slack = longest // 8
        assert stop % BLOCK_BYTES == 0
        assert span.start < stop <= span.start + longest + slack
        edges = [each * BLOCK_BYTES for each in stops]
        if stop not in edges:
            assert stop == span.start + longest
            rest = min(edge for edge in edges if edge > stop) - stop
            assert rest > slack
        elif stop != edges[-1]:
            # With the next one it would be too long, and what that one would give too short.
            assert stop >= span.start + longest - slack


class TestController:
    @given(
        st.integers(1, 64),
        st.lists(
            st.tuples(
                st.sampled_from(["response", "progress", "range", "throttled"]),
                st.floats(0, 3),
                st.integers(0, 10**9),
                st.integers(1, 100),
                st.booleans(),
            ),
            max_size=60,
        ),
    )
    def test_between_one_and_most(self, most: int, events: Any) -> None:
        controller, now_s = ConnectionController(most), 0.0
        for what, passed_s, n_bytes, n_active, wants in events:
            now_s += passed_s
            before = controller.target
            if what == "progress":
                controller.note_progress(now_s, n_bytes, n_active, is_wanting=wants)
            elif what == "range":
                controller.note_range(now_s, n_bytes, passed_s)
            elif what == "response":
                controller.note_response(now_s, passed_s / 3)
            else:
                controller.note_throttled(now_s)
                assert controller.target <= before
            assert 1 <= controller.target <= most

    @staticmethod
    def play(controller: ConnectionController, line: Any, until_s: float) -> float:
        """Run ranges of 8 MiB over *line* (connections -> bytes/s each) without end."""
        now_s, step_s = controller._since_s, 0.05
        until_s += now_s
        left = [0.0] * 200
        began = [0.0] * 200
        while now_s < until_s:
            now_s += step_s
            n = controller.target
            rate = line(n)
            for each in range(n):
                if left[each] <= 0:
                    left[each], began[each] = 8e6, now_s - step_s
                left[each] -= rate * step_s
                controller.note_progress(now_s, int(rate * step_s), n, is_wanting=True)
                if left[each] <= 0:
                    controller.note_response(now_s, 0.1)
                    controller.note_range(now_s, 8_000_000, now_s - began[each])
        return now_s

    def test_the_slow_start_makes_no_range_short(self) -> None:
        """What the next range will carry is seen in the later half of the last one."""
        controller = ConnectionController(64)
        controller.note_range(1.0, 1_000_000, 0.5, 8e6)
        assert controller.rate_bytes_per_s == 2e6
        assert controller.next_bytes_per_s == 8e6
        # A half that came at one moment on a busy machine.
        controller = ConnectionController(64)
        controller.note_range(1.0, 1_000_000, 0.5, 1e12)
        assert controller.next_bytes_per_s == MAX_LATER * 2e6

    def test_a_near_store_with_a_cap_shows_it_before_a_range_ends(self) -> None:
        """Where a connection carries little, others are opened; a far line begins slowly."""
        for response_s, n_connections in ((0.001, 64), (0.05, 40)):
            controller = ConnectionController(64)
            controller.note_response(0.0, response_s)
            controller.note_part(0.05, 500_000, 0.05)
            assert controller.rate_bytes_per_s is None
            controller.note_part(0.2, 400_000, 0.2)
            assert controller.target == n_connections
            assert (controller.rate_bytes_per_s == 2e6) is controller.is_near

    def test_a_near_line_begins_with_few(self) -> None:
        """A response that comes at once needs no more connections, unless what follows is slow."""
        controller = ConnectionController(64)
        controller.note_response(0.0, 0.001)
        assert controller.target == MIN_CONNECTIONS
        controller.note_range(1.0, 8_000_000, 0.4)
        assert controller.target == 64

    def test_a_short_range_shows_the_cap_of_a_near_store(self) -> None:
        """No slow start explains its rate, as one does over a far line."""
        for response_s, n_connections in ((0.001, 64), (0.05, 40)):
            controller = ConnectionController(64)
            controller.note_response(0.0, response_s)
            controller.note_range(1.0, 1_000_000, 0.5)
            assert controller.target == n_connections

    @pytest.mark.parametrize("rate", [5e6, 10e6, 25e6, 50e6])
    def test_capped_connections_grow_to_what_is_needed(self, rate: float) -> None:
        """Where each connection carries the same, so many are used as reach the goal."""
        controller = ConnectionController(64)
        self.play(controller, lambda n: rate, 20)
        assert controller.target >= min(64, round(0.9 * 1.5e9 / rate))

    def test_no_more_are_opened_while_requests_wait(self) -> None:
        """Where processors or the line are full, each range is slow, and more would be slower."""
        controller = ConnectionController(64)
        for _ in range(20):
            controller.note_response(0.0, 0.03)
        tried = controller.target
        assert tried == 24
        for number in range(20):
            controller.note_response(1.0 + number, 0.12)
        controller.note_range(30.0, 8_000_000, 0.4)
        assert controller.target == tried
        for number in range(20):
            controller.note_response(30.0 + number, 0.035)
            controller.note_range(30.0 + number, 8_000_000, 0.4)
        assert controller.target == 64

    @pytest.mark.parametrize("whole", [20e6, 100e6, 400e6])
    def test_a_shared_line_is_not_crowded(self, whole: float) -> None:
        """Where all share one narrow line that two can fill, most are given back before long.

        None is ever seen alone here, so half as many must be tried, again and again.
        """
        controller = ConnectionController(64)
        controller.note_response(0.0, 0.1)
        assert controller.target == 64
        self.play(controller, lambda n: min(whole / 2, whole / n), 60)
        assert controller.target <= 2 * INITIAL_CONNECTIONS

    def test_a_cut_that_costs_is_taken_back(self) -> None:
        """Connections that become slow for reasons of their own are not cut to a few."""
        controller = ConnectionController(64)
        self.play(controller, lambda n: 50e6, 5)
        assert controller.target >= 27
        self.play(controller, lambda n: 10e6, 30)
        assert controller.target >= 27

    def test_throttling_in_a_trial_is_not_taken_for_its_failure(self) -> None:
        """Fewer carry less then, by the store's response; it gets no more requests at once."""
        controller = ConnectionController(64)
        now_s = 0.0
        while controller._before is None:  # the trial begins after some seconds
            now_s = self.play(controller, lambda n: 25e6, 0.5)
        tried = controller.target
        controller.note_throttled(now_s)
        assert controller.target <= tried // 2
        self.play(controller, lambda n: 1e6, 2)
        assert controller.target <= tried // 2

    def test_throttling_halves(self) -> None:
        controller = ConnectionController(64)
        self.play(controller, lambda n: 25e6, 20)
        before = controller.target
        for _ in range(10):
            controller.note_throttled(21.0)
        assert controller.target == before // 2
        controller.note_throttled(27.0)
        assert controller.target <= before // 2


texts = st.text(max_size=30)
verdicts = st.builds(ResponseClass, st.sampled_from(list(ResponseKind)), texts)


class TestMessages:
    @given(
        st.builds(
            MoveOrder,
            *[st.integers(0, 2**40)] * 2,
            texts,
            *[st.integers(0, 2**60)] * 2,
            texts,
            st.integers(0, 2**60),
        )
    )
    def test_orders(self, move: MoveOrder) -> None:
        kind, fields = messages.read_order(messages.pack_move(move))
        assert (kind, MoveOrder(**cast(Any, fields))) == ("move", move)

    @given(st.integers(0, 2**40), st.integers(0, 2**60),
           st.lists(st.integers(0, 2**64 - 1), max_size=messages.MAX_BLOCKS))  # fmt: skip
    def test_progress(self, move: int, front: int, hashes: list[int]) -> None:
        packet = messages.pack_progress(ProgressReport(move, front, hashes, 0.25))
        assert len(packet) <= messages.MAX_BYTES
        assert messages.read_report(packet) == ProgressReport(move, front, hashes, 0.25)

    @given(st.builds(OutcomeReport, st.integers(0, 2**40), st.none() | verdicts, st.none() | texts,
                     st.booleans(), st.booleans()))  # fmt: skip
    def test_outcomes(self, outcome: OutcomeReport) -> None:
        assert messages.read_report(messages.pack_outcome(outcome)) == outcome

    def test_a_wait_that_is_required(self) -> None:
        outcome = OutcomeReport(1, retry_after_s=7.25)
        assert messages.read_report(messages.pack_outcome(outcome)) == outcome

    @given(st.binary(max_size=80) | st.binary(max_size=60).map(
        lambda data: messages.pack_outcome(OutcomeReport(1))[:25] + data) | st.sampled_from(
        [b"[]", b"{}", b"3", b'{"meaning":"?"}', b'{"meaning":[]}', b'{"meaning":null}']).map(
        lambda data: messages.pack_outcome(OutcomeReport(1))[:25] + data))  # fmt: skip
    def test_garbage_is_a_value_error(self, packet: bytes) -> None:
        try:
            messages.read_report(packet)
        except ValueError:
            return
        assert packet[0] in (1, 2)
