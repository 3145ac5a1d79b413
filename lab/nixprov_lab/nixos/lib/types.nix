# The types of options: the check of a value, and the merge of several definitions.
lib:
import ./types/plain.nix lib
// import ./types/composite.nix lib
// {
  inherit (import ./types/make.nix lib) mkOptionType;
  isType = kind: value: value._type or "" == kind;
  isOptionType = value: value._type or "" == "option-type";
  setType = kind: value: value // {_type = kind;};
}
