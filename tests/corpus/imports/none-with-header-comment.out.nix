{ pkgs, ... }:
{ # the build machine
  imports = [ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) ]; # nixprov: added by "nixprov up", removed by "nixprov down"
  # no modules yet; imports = [ ./not-real.nix ];
  networking.hostName = "a";
}
