{ config, pkgs, ... }:

{
  imports =
    [ # Include the results of the hardware scan.
      ./hardware-configuration.nix # comment
      (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) # nixprov: added by "nixprov up", removed by "nixprov down"
    ];
}
