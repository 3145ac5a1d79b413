{ ... }:
{
  imports =
    [
      ./hardware-configuration.nix
      ./users.nix /* the "a#b" team */ ];
}
