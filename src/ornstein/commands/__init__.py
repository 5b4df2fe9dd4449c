"""The commands behind `ornstein …`, one file each; nothing here is imported until its command is called."""
