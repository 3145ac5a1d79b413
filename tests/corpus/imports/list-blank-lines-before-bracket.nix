{ ... }:
{
  imports = [
    ./hardware-configuration.nix

    # below: nothing yet

  ];
}
