# An option by which the module's files share a value. Users do not set it.
{ lib }:

type: value: description:
lib.mkOption {
  inherit type description;
  default = value;
  internal = true;
  readOnly = true;
}
