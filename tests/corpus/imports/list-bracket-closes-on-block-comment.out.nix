{ ... }:
{
  imports =
    [
      ./hardware-configuration.nix
      ./users.nix /* the "a#b" team */
      (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) /* nixprov */ ];
}
