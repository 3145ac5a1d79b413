{ lib, ... }:
{
  imports = [
    ./hardware-configuration.nix
    ./users.nix
  ];
  networking.hostName = "build1";
}
