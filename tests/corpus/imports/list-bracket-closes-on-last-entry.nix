{ ... }:
{
  imports =
    [ ./hardware-configuration.nix
      ./users.nix ];
}
