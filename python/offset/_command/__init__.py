"""The subcommands of `offset`, one file each: HELP, `arguments(parser)` and `run(options) -> exit status`."""
