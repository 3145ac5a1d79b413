# Short forms of option declarations, for NixOS' own modules here.
lib: let
  inherit (lib) mkOption types;
  self = {
    option = type: default: description:
      mkOption {inherit type default description;};
    # An option without a default.
    required = type: description: mkOption {inherit type description;};
    # One that may be null, and is.
    optional = type: self.option (types.nullOr type) null;
    flag = self.option types.bool;
    # Read, whatever it is, and without effect in the lab.
    inert = self.option types.anything {} "Without effect in the lab.";
    # The assertion of an option that exists, but cannot be used here.
    refuse = name: isUsed: {
      assertion = !isUsed;
      message = "${name}: not supported by the stand-in NixOS";
    };
  };
in
  self
