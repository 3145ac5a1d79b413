# The library of the stand-in: the part of nixpkgs' `lib` that a NixOS module of an ordinary machine uses.
# The rest is missing on purpose: `lib.<name>` then fails with "attribute '<name>' missing", never quietly.
let
  parts = builtins.mapAttrs (_: file: import file lib) {
    trivial = ./trivial.nix;
    strings = ./strings.nix;
    lists = ./lists.nix;
    attrsets = ./attrsets.nix;
    generators = ./generators.nix;
    meta = ./meta.nix;
    versions = ./versions.nix;
    options = ./options.nix;
    modules = ./modules.nix;
    renames = ./renames.nix;
    priorities = ./priorities.nix;
    types = ./types.nix;
  };
  lib =
    parts
    // parts.trivial
    // parts.strings
    // parts.lists
    // parts.attrsets
    // parts.meta
    // parts.versions
    // parts.options
    // parts.priorities
    // parts.modules
    // parts.renames
    // {
      inherit (parts.types) mkOptionType isType setType isOptionType;
    };
in
  lib
