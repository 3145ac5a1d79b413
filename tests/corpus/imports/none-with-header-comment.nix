{ pkgs, ... }:
{ # the build machine
  # no modules yet; imports = [ ./not-real.nix ];
  networking.hostName = "a";
}
