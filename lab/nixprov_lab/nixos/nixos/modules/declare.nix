# Short forms of option declarations, for NixOS' own modules here.
lib: let
  inherit (lib) mkOption types;
  self = {
    option = type: default: description:
      mkOption {inherit type default description;};
    # An option without a default.
    required = type: description: mkOption {inherit type description;};
    # An option that may be null, its default.
    optional = type: self.option (types.nullOr type) null;
    flag = self.option types.bool;
    # An option of any value, read and without effect in the lab.
    inert = self.option types.anything {} "Without effect in the lab.";
    # The assertion for an option that exists but cannot be used here.
    refuse = name: isUsed: {
      assertion = !isUsed;
      message = "${name}: not supported by the stand-in NixOS";
    };
  };
in
  self
