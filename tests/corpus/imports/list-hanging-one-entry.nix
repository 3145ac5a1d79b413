{ ... }:
{
  imports = [ ./hardware-configuration.nix
            ];
}
