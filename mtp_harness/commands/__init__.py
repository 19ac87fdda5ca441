"""The subcommands of `mtp-harness`, one file each, named as it is typed."""
