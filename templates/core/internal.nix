# What the module's files tell each other: an option that nobody sets.
{ lib }:

type: value: description:
lib.mkOption {
  inherit type description;
  default = value;
  internal = true;
  readOnly = true;
}
