{ ... }:
{
  imports = [   
    ./hardware-configuration.nix  	 
  ];
}
