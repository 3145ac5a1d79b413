{ ... }:
{
  imports = [
    ./hardware-configuration.nix
    # ./desktop.nix   (no screen here)
#    ./old.nix
  ];
}
