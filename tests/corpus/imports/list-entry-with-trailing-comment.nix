{ ... }:
{
  imports = [
    ./hardware-configuration.nix # made by nixos-generate-config ]
    ./b.nix /* ] */
  ];
}
