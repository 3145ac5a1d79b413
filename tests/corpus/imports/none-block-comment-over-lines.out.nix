{ pkgs, ... }:
{ /* the build
     machine */
  imports = [ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) ]; # nixprov: added by "nixprov up", removed by "nixprov down"
  networking.hostName = "a";
}
