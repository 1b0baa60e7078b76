"""Groups of commands that propose the nearest name for one that is misspelt."""

from __future__ import annotations

import click


class Commands(click.Group):
    """A group of commands; a name that none of them has ends with the nearest that there is."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that *args* begin with, its name, and the rest of them.

        Raises:
            click.UsageError: there is no such command.
        """
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            from satfs.settings import did_you_mean  # a tenth of a second, for a mistake only

            there_are = self.list_commands(ctx)
            ctx.fail(f"There is no command {name!r}{did_you_mean(name, there_are)}.")
        return super().resolve_command(ctx, args)
