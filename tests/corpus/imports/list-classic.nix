# Edit this configuration file to define what should be installed on
# your system.

{ config, pkgs, ... }:

{
  imports =
    [ # Include the results of the hardware scan.
      ./hardware-configuration.nix
    ];

  networking.hostName = "build1"; # Define your hostname.
  system.stateVersion = "25.11";
}
